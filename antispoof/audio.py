"""Turns any recording into the one signal a detector hears: mono float32 at 16 kHz.

Nothing is normalised, because the amplitude is part of what the models were trained on. Whatever cannot
be heard as it was recorded (cut short, damaged, silent, not a number) is refused: it never gets a score.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from antispoof.errors import UserError, one_line

SAMPLE_RATE = 16_000  # Hz
CLIP_SAMPLES = 64_600  # 4.0375 s, what the AASIST family was trained on
MIN_SAMPLES = SAMPLE_RATE // 10
MIN_SECONDS = MIN_SAMPLES / SAMPLE_RATE  # 0.1: less than one syllable says nothing about who spoke it
MAX_SECONDS = 3_600  # an hour is 230 MB at 16 kHz; what claims more is an archive or a lying header

MIN_RATE, MAX_RATE = 4_000, 768_000  # Hz: below telephone speech, and the fastest converters sold
MAX_CHANNELS = 32
MAX_PEAK = 100.0  # 40 dB over full scale: no recording, but integers stored as floating point

_BLOCK_FRAMES = 65_536  # decoded at a time, so that a header that lies cannot fill the memory
_UNKNOWN_FRAMES = 2**62  # libsndfile answers 2**63 - 1 when a FLAC stream does not say how long it is
_NO_SIZE_BYTES = 0x7FFF_F000  # programs that write to a pipe put this or more where the size belongs

# MPEG audio (also when it starts with a frame, 0xFFE) and MIDI sample dumps: libsndfile's decoders for
# them write to stderr and stdout, past Python. FFmpeg reads the former; the latter are instruments.
_NOISY_HEADS = (b"ID3", b"\xf0\x7e")

# libsndfile mends a size that reaches past the end of the file and says so only in its log.
_MENDED_SIZE = re.compile(
    r"^ *(?:data|riff|SSND|BODY|Data Size) *: (?P<promised>\d+) \(should be \d+\)"
    r"|frame count \d+ does not match value from 'ds64' chunk of (?P<frames>\d+)",
    re.MULTILINE,
)
_NIST_FRAMES = re.compile(rb"^sample_count -i (\d+)", re.MULTILINE)
_HEAD_BYTES = 1_024  # a NIST header, or enough to name any other format
_OGG_PAGE_BYTES = 65_307  # the longest page: a header of 27, 255 sizes and 255 segments of 255
_OGG_PAGE_HEADER = 27
_OGG_LAST_PAGE = 4  # a bit of the page's sixth byte (RFC 3533, section 6)
_UNRECOGNISED, _UNSUPPORTED = 1, 4  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT, SF_ERR_UNSUPPORTED_ENCODING

# FFmpeg also guesses at text, pictures and play lists, which can name other files and addresses to open.
_FFMPEG_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,w64,wav,wv"
)
# The containers that state their duration, and by how many seconds a whole file may fall short of it:
# FLAC counts samples, the others round and count the encoder's delay. FFmpeg guesses it for the rest.
_SHORTFALL_SECONDS = {"flac": 0.0, "mov,mp4,m4a,3gp,3g2,mj2": 0.3, "matroska,webm": 0.3}


class _Refused(Exception):
    """Why a file is no recording that can be scored, as the end of a sentence that starts with its name."""


class _TryFFmpeg(Exception):
    """What libsndfile said of a file that FFmpeg may still be able to read."""


class _Block(NamedTuple):
    """Some decoded audio: ``frames`` is (frames, channels) float32, ``rate`` is in Hz."""

    frames: np.ndarray
    rate: int


def load_audio(
    path: str | os.PathLike[str], *, limit_seconds: float | None = None, max_seconds: float = MAX_SECONDS
) -> np.ndarray:
    """Reads a recording as mono float32 at 16 kHz, of shape (samples,).

    libsndfile reads it where it can and FFmpeg (PyAV) where it cannot. Integers are divided by their full
    scale (16 bits: by 32768), channels are averaged, other rates are resampled by soxr at high quality.

    Args:
        path: A regular file in any audio format, or a video's sound track.
        limit_seconds: Decode only the head of this length; it equals the head of the whole, bit for bit.
        max_seconds: The longest recording accepted.

    Raises:
        UserError: The file is missing, unreadable, cut short, damaged, silent, not finite, shorter than
            ``MIN_SECONDS``, longer than ``max_seconds``, or no audio at all.
    """
    if limit_seconds is not None and not limit_seconds >= MIN_SECONDS:
        raise ValueError(f"limit_seconds must be at least {MIN_SECONDS}, not {limit_seconds}")
    name = repr(os.fspath(path))  # quoted: a line break or an escape sequence in a name stays harmless
    try:
        with _open_regular(Path(path)) as file:
            waveform = _read(file, limit_seconds, max_seconds)
    except _Refused as reason:
        raise UserError(f"{name} {one_line(reason)}") from None
    except FileNotFoundError:
        raise UserError(f"{name} does not exist") from None
    except OSError as error:  # on opening, or from the disk while reading
        raise UserError(f"{name} cannot be read: {error.strerror}") from None
    validate_waveform(waveform, name)
    return waveform


def load_head(path: str | os.PathLike[str], samples: int) -> np.ndarray:
    """Reads as much of a recording as a clip of ``samples`` takes, and never too little to judge it by.

    Raises:
        UserError: As `load_audio`.
    """
    return load_audio(path, limit_seconds=max(samples / SAMPLE_RATE, MIN_SECONDS))


def fit_length(waveform: np.ndarray, samples: int = CLIP_SAMPLES) -> np.ndarray:
    """Makes a waveform exactly ``samples`` long: repeats a short one, takes the head of a long one.

    Repeating rather than padding with zeros is how the AASIST family was trained and evaluated.
    """
    if len(waveform) == 0:
        raise ValueError("an empty waveform cannot be repeated")
    repeats = samples // len(waveform) + 1
    return np.tile(waveform[:samples], repeats)[:samples].astype(np.float32)


def validate_waveform(waveform: np.ndarray, name: str = "the waveform") -> None:
    """Refuses what must never get a score; ``name`` starts the message.

    Raises:
        UserError: Not a (samples,) float32 array, empty or shorter than ``MIN_SECONDS`` at 16 kHz,
            NaN or infinite anywhere, beyond ``MAX_PEAK``, or zero throughout.
    """
    if not isinstance(waveform, np.ndarray) or waveform.dtype != np.float32:
        kind = waveform.dtype if isinstance(waveform, np.ndarray) else type(waveform).__name__
        raise UserError(f"{name} must be a float32 array, not {kind}")
    if waveform.ndim != 1:
        raise UserError(f"{name} must have the shape (samples,), not {waveform.shape}")
    if len(waveform) == 0:
        raise UserError(f"{name} holds no audio")
    if len(waveform) < MIN_SAMPLES:
        seconds = len(waveform) / SAMPLE_RATE
        raise UserError(f"{name} lasts {seconds:.3f} s: at least {MIN_SECONDS} s are needed")
    try:
        peak = _checked_peak(waveform)
    except _Refused as reason:
        raise UserError(f"{name} {reason}") from None
    if peak == 0:
        raise UserError(f"{name} is silent: every sample is zero")


def _open_regular(path: Path) -> BinaryIO:
    """Opens a regular file; a pipe or device, which could block for ever, is refused unopened."""
    try:
        status = path.stat()
    except ValueError as error:  # a null character in the name
        raise _Refused(f"cannot be read: {error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise _Refused("is a directory, not an audio file")
    if not stat.S_ISREG(status.st_mode):
        raise _Refused("is a pipe or a device: save the audio to a regular file first")
    if status.st_size == 0:
        raise _Refused("is empty")
    return path.open("rb", buffering=0)


def _read(file: BinaryIO, limit_seconds: float | None, max_seconds: float) -> np.ndarray:
    """Decodes with libsndfile, or else with FFmpeg, into mono at 16 kHz."""
    head = file.read(_HEAD_BYTES)
    if head.startswith(b"OggS"):
        _check_ogg_end(file)
    file.seek(0)
    try:
        return _to_mono_16k(_libsndfile_blocks(file, head, max_seconds), limit_seconds, max_seconds)
    except _TryFFmpeg:
        file.seek(0)
        return _to_mono_16k(_ffmpeg_blocks(file, max_seconds), limit_seconds, max_seconds)


def _to_mono_16k(blocks: Iterator[_Block], limit_seconds: float | None, max_seconds: float) -> np.ndarray:
    """Averages channels and resamples block by block, so that memory follows the result, not the file."""
    limit = None if limit_seconds is None else round(limit_seconds * SAMPLE_RATE)
    resampler: soxr.ResampleStream | None = None
    pieces: list[np.ndarray] = []
    samples = 0
    for block in blocks:
        _checked_peak(block.frames)
        mono = block.frames.mean(axis=1, dtype=np.float64).astype(np.float32)
        if not pieces and block.rate != SAMPLE_RATE:
            resampler = soxr.ResampleStream(block.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        pieces.append(mono if resampler is None else resampler.resample_chunk(mono))
        samples += len(pieces[-1])
        if limit is not None and samples >= limit:
            return np.concatenate(pieces)[:limit]
        if samples > max_seconds * SAMPLE_RATE:
            raise _Refused(f"is longer than {max_seconds:g} s: cut it into parts")
    if resampler is not None:
        pieces.append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    return np.concatenate(pieces)[:limit] if pieces else np.empty(0, np.float32)


def _checked_peak(samples: np.ndarray) -> float:
    """Returns the largest magnitude, or refuses samples that are not finite or not to scale."""
    peak = max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))
    if not np.isfinite(peak):
        raise _Refused("holds samples that are NaN or infinite")
    if peak > MAX_PEAK:
        raise _Refused(f"has a peak of {peak:g}: floating-point audio must be scaled to -1..1")
    return peak


def _check_header(rate: int, channels: int, seconds: float | None, max_seconds: float) -> None:
    """Refuses what no recording of speech has, before anything is decoded."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise _Refused(f"has a sample rate of {rate} Hz: {MIN_RATE} to {MAX_RATE} Hz are accepted")
    if not 1 <= channels <= MAX_CHANNELS:
        raise _Refused(f"has {channels} channels: 1 to {MAX_CHANNELS} are accepted")
    if seconds is not None and seconds > max_seconds:
        raise _Refused(f"lasts {seconds:.0f} s by its header: at most {max_seconds:g} s are accepted")


def _check_ogg_end(file: BinaryIO) -> None:
    """Refuses an Ogg file without its last page: both libraries return the part before it as the whole."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _OGG_PAGE_BYTES))
    tail = file.read(_OGG_PAGE_BYTES)
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[_OGG_PAGE_HEADER - 1] if len(page) >= _OGG_PAGE_HEADER else 0
    length = _OGG_PAGE_HEADER + segments + sum(page[_OGG_PAGE_HEADER : _OGG_PAGE_HEADER + segments])
    if len(page) < length or not page[5] & _OGG_LAST_PAGE:
        raise _Refused("is cut short: its last Ogg page is missing")


def _libsndfile_blocks(file: BinaryIO, head: bytes, max_seconds: float) -> Iterator[_Block]:
    """Decodes with libsndfile.

    Opened by descriptor, because by name libsndfile takes a random bytes in a ``.gsm`` or ``.au`` for audio.
    """
    if head.startswith(_NOISY_HEADS) or (head[0] == 0xFF and head[1:2] >= b"\xe0"):
        raise _TryFFmpeg("libsndfile would print what it thinks of it")
    try:
        with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            known = sound.frames < _UNKNOWN_FRAMES
            seconds = sound.frames / max(sound.samplerate, 1) if known else None
            _check_header(sound.samplerate, sound.channels, seconds, max_seconds)
            _check_not_cut(sound, head)
            yield from _frames_of(sound, known)
    except soundfile.LibsndfileError as error:
        # FFmpeg decodes valid FLAC files that libFLAC gives up on, and can tell a cut one. Of other
        # formats it would return whatever half is left.
        if error.code in (_UNRECOGNISED, _UNSUPPORTED) or head.startswith(b"fLaC"):
            raise _TryFFmpeg(error.error_string) from None
        raise _Refused(f"is damaged or cut short ({error.error_string})") from None


def _frames_of(sound: soundfile.SoundFile, known: bool) -> Iterator[_Block]:
    """Yields what an open file holds and compares its amount with the promise."""
    done = 0
    while True:
        frames = sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        done += len(frames)
        if len(frames) == 0:
            break
        yield _Block(frames, sound.samplerate)
    if known and done < sound.frames:
        raise _Refused(f"is cut short: it holds {done} of {sound.frames} samples")


def _check_not_cut(sound: soundfile.SoundFile, head: bytes) -> None:
    """Refuses a file that ends before the audio that its header promises."""
    if sound.frames == 0:
        if sound.format in ("WAV", "WAVEX"):  # written to a pipe, so that the size stayed zero
            raise _TryFFmpeg("no size")
        raise _Refused("is cut short or holds no audio")
    mended = _MENDED_SIZE.search(sound.extra_info)
    nist = _NIST_FRAMES.search(head) if sound.format == "NIST" else None
    cut = mended and int(mended["promised"] or mended["frames"]) < _NO_SIZE_BYTES
    if cut or (nist and int(nist[1]) > sound.frames):
        raise _Refused("is cut short: its header promises more audio than the file holds")


def _ffmpeg_blocks(file: BinaryIO, max_seconds: float) -> Iterator[_Block]:
    """Decodes the first audio stream with FFmpeg; any packet it cannot decode refuses the file."""
    import av

    try:
        container = av.open(
            file,
            mode="r",
            metadata_errors="replace",
            container_options={"format_whitelist": _FFMPEG_CONTAINERS},
        )
    except (av.FFmpegError, ValueError):
        raise _Refused("is not audio in a known format, or its header is damaged or missing") from None
    try:
        with container:
            yield from _blocks_of_container(container, max_seconds)
    except (av.FFmpegError, ValueError) as error:
        raise _Refused(f"is damaged or cut short ({getattr(error, 'strerror', error)})") from None


def _blocks_of_container(container: Any, max_seconds: float) -> Iterator[_Block]:
    """Yields the first audio stream of an open container and compares its length with the promise."""
    if not container.streams.audio:
        raise _Refused("has no audio track")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise _Refused("is encoded in a way that this build of FFmpeg cannot decode")
    if stream.codec_context.name == "flac":  # unasked, FFmpeg plays frames with a wrong checksum
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    seconds = _stated_seconds(container, stream)
    rate = channels = done = 0
    for frame in container.decode(stream):
        if done == 0:
            rate, channels = frame.sample_rate, frame.layout.nb_channels
            _check_header(rate, channels, seconds, max_seconds)
        elif (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
            raise _Refused("changes its sample rate or channels on the way")
        done += frame.samples
        yield _Block(_scaled(frame), rate)
    if seconds is not None and done < round((seconds - _SHORTFALL_SECONDS[container.format.name]) * rate):
        raise _Refused(f"is cut short: it holds {done / rate:.2f} of {seconds:.2f} s")


def _stated_seconds(container: Any, stream: Any) -> float | None:
    """The length that the file itself states for its audio, if it does."""
    if container.format.name not in _SHORTFALL_SECONDS:
        return None
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1e6  # AV_TIME_BASE, microseconds
    return None


def _scaled(frame: Any) -> np.ndarray:
    """A decoded frame as (frames, channels) float32, integers divided by their full scale."""
    array = frame.to_ndarray()
    frames = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    if frames.dtype == np.uint8:
        return (frames.astype(np.float32) - 128) / 128
    if frames.dtype.kind == "i":
        return frames.astype(np.float32) / np.float32(2 ** (8 * frames.itemsize - 1))
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, and is refused as such
        return frames.astype(np.float32)
