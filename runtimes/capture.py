"""Where streamed audio comes from: a recording played through, or a microphone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from antispoof.audio import SAMPLE_RATE, load_audio
from antispoof.errors import UserError, one_line
from antispoof.native_log import silent_stderr
from runtimes.native_core import MAX_CHANNELS, resamples_from

BLOCK_SECONDS = 0.1  # heard at a time: short beside any hop


class SourceFailed(Exception):
    """A source ended before its end: a file cut short, a microphone unplugged or taken away."""


class Lost(NamedTuple):
    """Samples that the source could not deliver."""

    frames: int


@dataclass(frozen=True)
class Source:
    """Audio as it comes.

    Attributes:
        rate: In Hz.
        channels: How many.
        pieces: Samples ``(frames, channels)``, int16 or float32, and what was lost between them. Taking
            the next one raises `SourceFailed` where there should be one and is not.
    """

    rate: int
    channels: int
    pieces: Iterator[np.ndarray | Lost]


@contextmanager
def open_recording(path: Path) -> Iterator[Source]:
    """Plays a recording of any length at its own rate, or as `load_audio` has it where that cannot be.

    Raises:
        UserError: As `antispoof.audio.load_audio`.
    """
    with silent_stderr():  # libmpg123 tells of every header that it does not like
        try:
            sound = soundfile.SoundFile(path) if path.is_file() else None
        except soundfile.LibsndfileError:
            sound = None
    if sound is None or sound.frames == 0 or not resamples_from(sound.samplerate):
        waveform = load_audio(path)
        yield Source(SAMPLE_RATE, 1, iter([waveform[:, None]]))
        return
    with sound:
        mixed = sound.channels > MAX_CHANNELS
        yield Source(sound.samplerate, 1 if mixed else sound.channels, _played(sound, mixed))


def _played(sound: soundfile.SoundFile, mixed: bool) -> Iterator[np.ndarray | Lost]:
    done, block = 0, max(1, round(sound.samplerate * BLOCK_SECONDS))
    try:
        while len(frames := sound.read(block, dtype="float32", always_2d=True)):
            if not np.isfinite(frames).all():
                where = f"{done / sound.samplerate:.1f} s"
                raise SourceFailed(f"the recording holds samples that are NaN or infinite, from {where} on")
            done += len(frames)
            mono = (
                frames.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32) if mixed else frames
            )
            yield mono
    except soundfile.LibsndfileError as error:
        raise SourceFailed(f"the recording is damaged ({one_line(error)})") from error
    if done < sound.frames < 2**62:  # libsndfile's answer where the length is not known is larger
        raise SourceFailed(f"the recording is cut short: it holds {done} of {sound.frames} samples")


@contextmanager
def open_microphone(device: str | None = None) -> Iterator[Source]:
    """Listens to a microphone at its own rate, one channel of 16 bits.

    Raises:
        UserError: The sounddevice package or PortAudio is not installed, or there is no such microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # the latter: it comes without PortAudio on Linux
        raise UserError(
            f"the microphone needs the sounddevice package and PortAudio ({one_line(error)}): "
            "pip install sounddevice"
        ) from error
    chosen = int(device) if device and device.isdigit() else device
    try:
        rate = round(sounddevice.query_devices(chosen, "input")["default_samplerate"])
        rate = rate if resamples_from(rate) else SAMPLE_RATE
        block = round(rate * BLOCK_SECONDS)
        stream = sounddevice.InputStream(
            samplerate=rate, blocksize=block, device=chosen, channels=1, dtype="int16"
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UserError(f"cannot listen to {device or 'a microphone'}: {one_line(error)}") from error
    try:
        yield Source(rate, 1, _heard(stream, rate, block, sounddevice.PortAudioError))
    finally:
        stream.close()


def _heard(stream: Any, rate: int, block: int, failure: type[Exception]) -> Iterator[np.ndarray | Lost]:
    """Yields blocks; what an overrun swallowed is taken from the clock, since nobody counted it."""
    started, delivered = time.monotonic(), 0
    while True:
        try:
            samples, overrun = stream.read(block)
        except failure as error:
            raise SourceFailed(f"the microphone stopped: {one_line(error)}") from error
        if overrun:
            lost = max(1, round((time.monotonic() - started) * rate) - delivered - len(samples))
            delivered += lost
            yield Lost(lost)
        delivered += len(samples)
        yield samples
