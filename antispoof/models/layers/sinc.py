"""Sinc filter bank: windowed ideal band-pass filters on the raw waveform.

Ravanelli and Bengio, "Speaker recognition from raw waveform with SincNet", arXiv 1808.00158, eq. 4
to 8; spaced on the mel scale, and either constant as in RawNet2 and AASIST (arXiv 2110.01200, sec.
2.1) or with band edges that training moves, as in SincNet itself.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoof.audio import SAMPLE_RATE


def mel_band_edges(bands: int) -> np.ndarray:
    """Returns ``bands + 1`` edges in Hz from 0 to the Nyquist frequency, equally spaced in mel."""
    top_mel = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    return 700 * (10 ** (np.linspace(0, top_mel, bands + 1) / 2595) - 1)


def band_pass_filters(low_hz: Tensor, high_hz: Tensor, taps: int) -> Tensor:
    """Returns Hamming-windowed ideal band-pass filters ``(bands, 1, taps)``.

    Args:
        low_hz: Lower band edges ``(bands,)`` in Hz.
        high_hz: Upper band edges ``(bands,)`` in Hz.
        taps: Filter length, odd, so that the filters are symmetric.
    """
    dtype, device = low_hz.dtype, low_hz.device
    time = torch.arange(taps, dtype=dtype, device=device) - (taps - 1) / 2  # in samples
    window = torch.hamming_window(taps, periodic=False, dtype=dtype, device=device)

    def low_pass(cutoff_hz: Tensor) -> Tensor:
        cutoff = 2 * cutoff_hz[:, None] / SAMPLE_RATE  # as a share of the Nyquist frequency
        return cutoff * torch.sinc(cutoff * time)

    filters = (low_pass(high_hz) - low_pass(low_hz)) * window
    return filters[:, None, :]


class SincConv(nn.Module):
    """Filters a waveform with a constant sinc bank.

    The filters are no parameters and appear in no checkpoint: they follow from the band count and
    the filter length alone.
    """

    filters: Tensor  # (bands, 1, taps)

    def __init__(self, bands: int = 70, taps: int = 129, bands_used: int | None = None) -> None:
        """Builds the bank; ``bands_used`` keeps the lowest bands where the rest is never read."""
        super().__init__()
        self.taps = taps
        edges = torch.from_numpy(mel_band_edges(bands))  # float64, rounded once at the end
        filters = band_pass_filters(edges[:-1], edges[1:], taps)
        self.register_buffer("filters", filters[:bands_used].float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns ``(batch, bands, samples - taps + 1)`` for ``waveform (batch, samples)``."""
        return _filtered(waveform, self.filters)


class LearnableSincConv(nn.Module):
    """Filters a waveform with a sinc bank whose band edges are learned.

    The edges start where those of `SincConv` are. They are kept in kHz, so that a step of an optimiser
    that suits the other layers moves them too, and any value stands for a band: signs are dropped and
    edges end at the Nyquist frequency.
    """

    filters: Tensor | None  # (bands, 1, taps), once frozen

    def __init__(self, bands: int = 70, taps: int = 129, bands_used: int | None = None) -> None:
        """Builds the bank; ``bands_used`` keeps the lowest bands where the rest is never read."""
        super().__init__()
        self.taps = taps
        edges = torch.from_numpy(mel_band_edges(bands)) / 1000
        self.low_khz = nn.Parameter(edges[:-1][:bands_used].float())
        self.width_khz = nn.Parameter(edges.diff()[:bands_used].float())
        self.register_buffer("filters", None, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns ``(batch, bands, samples - taps + 1)`` for ``waveform (batch, samples)``."""
        filters = self._current_filters() if self.filters is None else self.filters
        return _filtered(waveform, filters)

    def freeze(self) -> None:
        """Makes the filters constant as training left them."""
        if self.filters is None:
            self.filters = self._current_filters()
            del self.low_khz, self.width_khz

    def _current_filters(self) -> Tensor:
        low = 1000 * _magnitude(self.low_khz)
        high = (low + 1000 * _magnitude(self.width_khz)).clamp(max=SAMPLE_RATE / 2)
        return band_pass_filters(low.clamp(max=SAMPLE_RATE / 2), high, self.taps)


def _filtered(waveform: Tensor, filters: Tensor) -> Tensor:
    """Returns a bank's output; for a map of one row ``(batch, 1, 1, samples)`` also as such maps."""
    if waveform.dim() == 4:
        return F.conv2d(waveform, filters.unsqueeze(2))
    return F.conv1d(waveform.unsqueeze(1), filters)


def _magnitude(x: Tensor) -> Tensor:
    """Returns ``abs(x)`` with a gradient at 0 too, where the lowest band starts."""
    return torch.where(x < 0, -x, x)
