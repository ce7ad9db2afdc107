"""Sends speech through a real codec and back, in memory, by FFmpeg (PyAV)."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soxr

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError, one_line
from antispoof.speechlike import speech_like

# Silence behind the speech, so that no codec keeps the end of it in its window: three AAC frames.
_TAIL_SECONDS = 3 * 1024 / SAMPLE_RATE
_FULL_SCALE = 32_768  # of 16 bits
_PROBE_SAMPLES = 2 * SAMPLE_RATE  # what a codec's delay is measured on


@dataclass(frozen=True)
class _Codec:
    """One row of the table.

    Attributes:
        encoder: FFmpeg's name of it.
        decoder: FFmpeg's name of it.
        rate: sample rate in Hz inside the codec.
        sample_format: what the encoder takes: ``fltp`` and ``flt`` float, ``s16`` integers.
        bit_rate: bits per second where none is asked for; None: the codec has one rate only.
        options: for the encoder.
    """

    encoder: str
    decoder: str
    rate: int
    sample_format: str
    bit_rate: int | None
    options: dict[str, str] = field(default_factory=dict)


_CODECS = {
    "mp3": _Codec("libmp3lame", "mp3float", 16_000, "fltp", 64_000),
    "aac": _Codec("aac", "aac", 16_000, "fltp", 32_000),
    "opus": _Codec("libopus", "libopus", 16_000, "flt", 16_000, {"application": "voip"}),
    "g711-mu": _Codec("pcm_mulaw", "pcm_mulaw", 8_000, "s16", None),
    "g711-a": _Codec("pcm_alaw", "pcm_alaw", 8_000, "s16", None),
    "g722": _Codec("g722", "g722", 16_000, "s16", None),
    "amr-nb": _Codec("libopencore_amrnb", "amrnb", 8_000, "s16", 12_200),
    "amr-wb": _Codec("libvo_amrwbenc", "amrwb", 16_000, "s16", 23_850),
}


@functools.cache
def codecs() -> tuple[str, ...]:
    """Returns the names of the codecs that this build of FFmpeg can both encode and decode."""
    import av
    from av.codec.codec import UnknownCodecError

    def present(codec: _Codec) -> bool:
        try:
            av.codec.Codec(codec.encoder, "w")
            av.codec.Codec(codec.decoder, "r")
        except UnknownCodecError:
            return False
        return True

    return tuple(name for name, codec in _CODECS.items() if present(codec))


def transcode(waveform: np.ndarray, codec: str, bit_rate: int | None = None) -> np.ndarray:
    """Encodes and decodes speech; the result is as long, and in step with it.

    Narrow-band codecs (G.711, AMR-NB) resample to 8 kHz and back, so nothing over 4 kHz survives.

    Args:
        waveform: (samples,) float32 at 16 kHz; what lies beyond -1..1 is clipped first.
        codec: one of ``codecs()``.
        bit_rate: bits per second; None takes the codec's usual one for speech.

    Raises:
        UserError: The codec is unknown, this build of FFmpeg lacks it, or it has no such bit rate.
    """
    if codec not in codecs():
        why = "this build of FFmpeg cannot encode" if codec in _CODECS else "there is no codec"
        raise UserError(f"{why} {codec!r}; choose from: {', '.join(codecs())}")
    row = _CODECS[codec]
    if bit_rate is not None and row.bit_rate is None:
        raise UserError(f"{codec} has one bit rate only; leave it out")
    return _in_step(_round_trip(waveform, row, bit_rate or row.bit_rate), _delay(codec), len(waveform))


def _in_step(decoded: np.ndarray, delay: int, samples: int) -> np.ndarray:
    kept = decoded[delay : delay + samples]
    return np.pad(kept, (0, samples - len(kept))).clip(-1, 1).astype(np.float32, copy=False)


@functools.cache
def _delay(codec: str) -> int:
    """Returns how many samples at 16 kHz the decoded sound lags behind what was encoded.

    Measured once, because builds differ in how much of the delay their decoders take away themselves.
    """
    probe = speech_like(0, _PROBE_SAMPLES)
    decoded = _round_trip(probe, _CODECS[codec], _CODECS[codec].bit_rate)
    points = 2 ** int(np.ceil(np.log2(len(probe) + len(decoded))))
    spectrum = np.fft.rfft(decoded, points) * np.conj(np.fft.rfft(probe, points))
    return int(np.argmax(np.fft.irfft(spectrum, points)[: _PROBE_SAMPLES // 2]))


def _round_trip(waveform: np.ndarray, codec: _Codec, bit_rate: int | None) -> np.ndarray:
    """Encodes and decodes; the result at 16 kHz still has the codec's delay and a tail."""
    import av

    clipped = waveform.clip(-1, 1).astype(np.float32, copy=False)
    padded = np.pad(clipped, (0, round(_TAIL_SECONDS * SAMPLE_RATE)))
    try:
        decoded, rate = _decode(codec, *_encode(_resampled(padded, SAMPLE_RATE, codec.rate), codec, bit_rate))
    except (av.FFmpegError, ValueError) as error:
        bits = "" if bit_rate is None else f" at {bit_rate} bit/s"
        reason = getattr(error, "strerror", error)
        raise UserError(f"{codec.encoder} cannot encode{bits}: {one_line(reason)}") from None
    return _resampled(decoded, rate, SAMPLE_RATE)


def _resampled(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    return waveform if from_rate == to_rate else soxr.resample(waveform, from_rate, to_rate, quality="HQ")


def _encode(waveform: np.ndarray, codec: _Codec, bit_rate: int | None) -> tuple[list[Any], bytes | None]:
    """Returns the packets, and what a decoder has to know beside them."""
    import av

    encoder: Any = av.CodecContext.create(codec.encoder, "w")
    encoder.sample_rate, encoder.layout, encoder.format = codec.rate, "mono", codec.sample_format
    encoder.options = dict(codec.options)
    if bit_rate is not None:
        encoder.bit_rate = bit_rate
    encoder.open()
    samples = waveform
    if codec.sample_format == "s16":
        samples = np.round(waveform * _FULL_SCALE).clip(-_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], format=codec.sample_format, layout="mono")
    frame.sample_rate, frame.pts = codec.rate, 0
    return [*encoder.encode(frame), *encoder.encode(None)], encoder.extradata


def _decode(codec: _Codec, packets: list[Any], extradata: bytes | None) -> tuple[np.ndarray, int]:
    """Returns (samples,) float32 and the rate in Hz at which the decoder puts them out."""
    import av

    decoder: Any = av.CodecContext.create(codec.decoder, "r")
    decoder.sample_rate, decoder.layout = codec.rate, "mono"
    if extradata:
        decoder.extradata = extradata
    frames = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    decoded = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    if decoded.dtype == np.int16:
        decoded = decoded.astype(np.float32) / _FULL_SCALE
    return decoded, frames[0].sample_rate
