"""Changes level, loses packets, adds and cuts off silence: what happens to the samples themselves."""

from __future__ import annotations

import numpy as np

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError

_FULL_SCALE = 32_768  # of 16 bits
QUIET_DB = 40.0  # below the loudest 10 ms, where nobody speaks
_QUIET_SAMPLES, _MARGIN_SAMPLES = SAMPLE_RATE // 100, SAMPLE_RATE // 20
CONCEALMENT_DECAY = 0.5  # how much of its level each repetition of a packet keeps


def apply_gain(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    """Changes the level and stores the result in 16 bits: it is rounded, and clipped at full scale."""
    scaled = np.round(waveform * np.float64(10 ** (gain_db / 20)) * _FULL_SCALE)
    return (scaled.clip(-_FULL_SCALE, _FULL_SCALE - 1) / _FULL_SCALE).astype(np.float32)


def clip_level(waveform: np.ndarray, share_of_peak: float) -> np.ndarray:
    """Cuts off what exceeds a share of the waveform's own peak, so that any level is clipped alike."""
    if not 0 < share_of_peak <= 1:
        raise UserError(f"the share of the peak lies between 0 and 1, not at {share_of_peak:g}")
    limit = np.float32(share_of_peak * np.abs(waveform).max(initial=0.0))
    return waveform.clip(-limit, limit)


def lose_packets(
    waveform: np.ndarray, rate: float, generator: np.random.Generator, packet_ms: float = 20.0
) -> np.ndarray:
    """Loses packets independently of each other and conceals them as a simple telephone does.

    A lost packet repeats the last one that came, at ``CONCEALMENT_DECAY`` of the level for each in a
    row; before the first there is silence.

    Args:
        waveform: (samples,) float32 at 16 kHz.
        rate: Share of packets lost, 0 to 1.
        generator: Where the chance comes from.
        packet_ms: Duration of a packet in milliseconds.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"the share of lost packets lies between 0 and 1, not at {rate:g}")
    size = round(packet_ms * SAMPLE_RATE / 1000)
    if size < 1:
        raise UserError(f"a packet of {packet_ms:g} ms holds no sample")
    count = -(-len(waveform) // size)
    packets = np.pad(waveform, (0, count * size - len(waveform))).reshape(count, size)
    came = generator.random(count) >= rate
    # The index of the last packet that came, -1 before the first.
    last = np.maximum.accumulate(np.where(came, np.arange(count), -1))
    level = np.where(last < 0, 0.0, CONCEALMENT_DECAY ** (np.arange(count) - last))
    heard = packets[np.maximum(last, 0)] * level[:, None].astype(np.float32)
    return heard.reshape(-1)[: len(waveform)].copy()


def add_leading_silence(waveform: np.ndarray, seconds: float) -> np.ndarray:
    """Puts digital silence before the speech; the result is longer by it."""
    if seconds < 0:
        raise UserError(f"a silence cannot last {seconds:g} s")
    return np.pad(waveform, (round(seconds * SAMPLE_RATE), 0))


def trim_silence(waveform: np.ndarray) -> np.ndarray:
    """Cuts off what lies before and after the speech, but for 50 ms; pauses within it stay.

    Speech starts and ends where 10 ms come within `QUIET_DB` of the loudest. A waveform that is shorter than
    that comes back as it is, and so does silence.
    """
    frames = waveform[: len(waveform) // _QUIET_SAMPLES * _QUIET_SAMPLES].reshape(-1, _QUIET_SAMPLES)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(power >= power.max(initial=0.0) * 10 ** (-QUIET_DB / 10))
    if not len(loud):
        return waveform.copy()
    start = max(0, loud[0] * _QUIET_SAMPLES - _MARGIN_SAMPLES)
    return waveform[start : (loud[-1] + 1) * _QUIET_SAMPLES + _MARGIN_SAMPLES].copy()
