"""Tones and speech written in every format, what other readers make of them, and how a file is refused."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from antispoof import audio
from antispoof.audio import SAMPLE_RATE, load_audio
from antispoof.errors import UserError

TONE_HZ = 440.0
TONE_PEAK = 0.3
SECONDS = 2.0
# A Hann window resolves a pure tone of two seconds far better than this; half a hertz is 2 cents at 440.
HZ_TOLERANCE = 0.5
LOSSLESS_LEVEL_TOLERANCE_DB = 0.01  # soxr HQ has a passband flat to within this
LOSSY_LEVEL_TOLERANCE_DB = 0.5


def tone(rate: int, seconds: float = SECONDS) -> np.ndarray:
    time_axis = np.arange(round(rate * seconds)) / rate
    return (TONE_PEAK * np.sin(2 * np.pi * TONE_HZ * time_axis)).astype(np.float32)


def speech_like(rate: int = SAMPLE_RATE, seconds: float = SECONDS, seed: int = 0) -> np.ndarray:
    """Harmonics of a gliding pitch, switched on and off four times a second, over faint noise."""
    random = np.random.default_rng(seed)
    time_axis = np.arange(round(rate * seconds)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time_axis)) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 20)) * (np.sin(2 * np.pi * 4 * time_axis) > 0)
    return (0.15 * voice + 0.003 * random.standard_normal(len(time_axis))).astype(np.float32)


def changed(position: int, value: float) -> np.ndarray:
    """Speech of which one sample has another value."""
    waveform = speech_like()
    waveform[position] = value
    return waveform


def encoded(samples: np.ndarray, rate: int, container: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def encoded_by_ffmpeg(path: Path, codec: str, rate: int, sample_format: str, samples: np.ndarray) -> Path:
    if sample_format.startswith("s16"):
        samples = np.round(samples * 32767).astype(np.int16)
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of FFmpeg has no encoder {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format=sample_format, layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        stream.codec_context.open()
        resampler = av.AudioResampler(sample_format, "mono", rate, stream.codec_context.frame_size or None)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def flac_with_length(samples: int, data: bytes | None = None) -> bytes:
    """A FLAC file of two seconds that claims another length; 0 stands for unknown."""
    changed = bytearray(data or encoded(speech_like(), SAMPLE_RATE, "FLAC"))
    changed[21] &= 0xF0  # the count's upper 4 of 36 bits
    struct.pack_into(">I", changed, 22, samples)
    return bytes(changed)


def soundfile_reads(data: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(data), dtype="float32")[0]


def by_ffmpeg(path: Path) -> np.ndarray:
    with path.open("rb", buffering=0) as file:
        return audio._to_mono_16k(audio._ffmpeg_blocks(file, audio.MAX_SECONDS), None, audio.MAX_SECONDS)


def assert_is_the_tone(waveform: np.ndarray, level_tolerance_db: float) -> None:
    middle = waveform[SAMPLE_RATE // 2 : SAMPLE_RATE // 2 + SAMPLE_RATE].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 16 * len(middle)))
    assert np.argmax(spectrum) / 16 == pytest.approx(TONE_HZ, abs=HZ_TOLERANCE)
    level_db = 20 * np.log10(np.sqrt(2 * np.mean(middle**2)) / TONE_PEAK)
    assert level_db == pytest.approx(0, abs=level_tolerance_db)


def refusal(path: Path | str, **options: float) -> str:
    """The message that the file is refused with: one printable line that names the file."""
    with pytest.raises(UserError) as caught:
        load_audio(path, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert repr(os.fspath(path)) in message
    return message
