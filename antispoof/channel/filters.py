"""Filters speech without delaying it."""

from __future__ import annotations

import functools

import numpy as np

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError

NYQUIST_HZ = SAMPLE_RATE / 2
TRANSITION_HZ = 200.0  # from full passage to the stop band, half of it on either side of the limit
STOP_BAND_DB = 70.0  # about what a telephone's converter reaches


def convolve(waveform: np.ndarray, response: np.ndarray, start: int) -> np.ndarray:
    """Returns the convolution from its sample ``start`` on, as long as ``waveform``, float64."""
    needed = len(waveform) + len(response) - 1
    points = 2 ** int(np.ceil(np.log2(needed)))
    product = np.fft.rfft(waveform, points) * np.fft.rfft(response, points)
    return np.fft.irfft(product, points)[start : start + len(waveform)]


def band_limit(waveform: np.ndarray, low_hz: float = 0.0, high_hz: float = NYQUIST_HZ) -> np.ndarray:
    """Removes what lies below ``low_hz`` and above ``high_hz``, at constant delay, which is taken away.

    At the limits themselves the level is 6 dB down; from half of ``TRANSITION_HZ`` beyond them,
    ``STOP_BAND_DB`` (a windowed sinc, Kaiser's window).

    Args:
        waveform: (samples,) float32 at 16 kHz.
        low_hz: 0 keeps everything from the lowest frequency on.
        high_hz: 8000 keeps everything up to the highest.
    """
    if not 0 <= low_hz < high_hz <= NYQUIST_HZ:
        raise UserError(f"a band lies within 0 to {NYQUIST_HZ:g} Hz, not from {low_hz:g} to {high_hz:g}")
    taps = _band_pass(low_hz, high_hz)
    return convolve(waveform, taps, len(taps) // 2).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _band_pass(low_hz: float, high_hz: float) -> np.ndarray:
    """Returns the taps of a symmetric filter, by Kaiser's formulas for its length and its window."""
    width = 2 * np.pi * TRANSITION_HZ / SAMPLE_RATE
    half = int(np.ceil((STOP_BAND_DB - 8) / (2.285 * width) / 2))
    window = np.kaiser(2 * half + 1, 0.1102 * (STOP_BAND_DB - 8.7))
    times = np.arange(-half, half + 1)
    low, high = low_hz / NYQUIST_HZ, high_hz / NYQUIST_HZ
    # At the ends of the spectrum the ideal response is that of no limit at all.
    return window * (high * np.sinc(high * times) - low * np.sinc(low * times))
