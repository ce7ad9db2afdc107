"""The front end of the fine-structure CNN: a log spectrum, and how each bin stands out from its neighbours.

It has to be computed in float32. What it hears between harmonics and above 4 kHz lies 60 dB and more below
the loudest sounds, which is where float16 rounds the waveform: scores of real speech then move by 0.02 in the
median. The network behind it is as exact in float16, to 0.0002.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoof.models.layers.power_spectrum import PowerSpectrum

# Of the mean power: where the log spectrum ends. What vocoders leave between harmonics and above 4 kHz is
# faint: with 1e-5, such a training leaves twice as many pairs of a spoof and a genuine clip ranked wrongly.
FLOOR = 1e-7
LEAST_MEAN = 1e-5  # of the power of a clip whose level is one, below which its spectrum is not made louder
SILENCE = 1e-5  # RMS of the waveform below which it is no longer made louder, -100 dBFS
NEIGHBOURS = 17  # bins of the moving average, 530 Hz
LOG_SCALE, FINE_SCALE = 1 / 3, 2.0  # bring both maps to about unit variance on speech
MEAN_STEP = 200  # samples that are added in a row


class FineSpectrum(nn.Module):
    """Waveform to two maps: the log spectrum and its fine structure, both free of the clip's level."""

    neighbours: Tensor  # (bins, bins), the moving average as a product, for the library

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.power = PowerSpectrum(bins)
        near = torch.arange(bins)[:, None] - torch.arange(bins)
        near = (near.abs() <= NEIGHBOURS // 2).float()
        self.register_buffer("neighbours", near / near.sum(dim=0), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns ``(batch, 2, bins, frames)`` for ``waveform (batch, samples)``."""
        waveform = waveform - mean_of_clip(waveform)
        level = mean_of_clip(waveform.square()).sqrt() + SILENCE
        power = self.power(waveform / level)
        if not self.power.by_library:
            return maps_of_power(power)
        log = log_of_power(power)
        around = (log.transpose(2, 3) @ self.neighbours).transpose(2, 3)
        return two_maps(log, mean_of_map(log), around)


def maps_of_power(power: Tensor) -> Tensor:
    """Returns the maps ``(batch, 2, bins, frames)`` of a clip's ``power (batch, 1, bins, frames)``."""
    log = log_of_power(power)
    return maps_of_log(log, mean_of_map(log))


def log_of_power(power: Tensor) -> Tensor:
    """Returns the log spectrum ``(batch, 1, bins, frames)``, which ends at `FLOOR`."""
    return torch.log(power / mean_of_map(power).clamp(min=LEAST_MEAN) + FLOOR)


def maps_of_log(log: Tensor, mean: Tensor) -> Tensor:
    """Returns the maps of a log spectrum ``(batch, 1, bins, frames)``, given the mean of the clip's."""
    around = F.avg_pool2d(
        log, (NEIGHBOURS, 1), stride=1, padding=(NEIGHBOURS // 2, 0), count_include_pad=False
    )
    return two_maps(log, mean, around)


def two_maps(log: Tensor, mean: Tensor, around: Tensor) -> Tensor:
    """Returns a log spectrum less the clip's mean and less each bin's neighbourhood, ``(batch, 2, ...)``."""
    return torch.cat([(log - mean) * LOG_SCALE, (log - around) * FINE_SCALE], dim=1)


# Means in two steps: runtimes that add tens of thousands of float32 numbers in a row, as ONNX Runtime does in
# a browser, are off by so much that integers behind them flip.


def mean_of_clip(waveform: Tensor) -> Tensor:
    """Returns the mean ``(batch, 1)`` of ``waveform (batch, samples)``."""
    samples = waveform.shape[1]
    if missing := -samples % MEAN_STEP:
        waveform = F.pad(waveform, (0, missing))
    return waveform.unflatten(1, (-1, MEAN_STEP)).sum(dim=2).sum(dim=1, keepdim=True) / samples


def mean_of_map(x: Tensor) -> Tensor:
    """Returns the mean ``(batch, 1, 1, 1)`` of ``x (batch, 1, bins, frames)``."""
    return x.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
