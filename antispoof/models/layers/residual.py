"""Residual encoder of RawNet2 and AASIST: six blocks over a time-frequency map of the waveform.

Tak et al., "End-to-end anti-spoofing with RawNet2", arXiv 2011.01108; arXiv 2110.01200, sec. 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from antispoof.models.layers.sinc import LearnableSincConv, SincConv

# Self-normalising networks, arXiv 1706.02515, eq. 14: selu(x) = SELU_SCALE * elu(x, SELU_ALPHA)
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


class ResidualBlock(nn.Module):
    """conv, norm, SELU, conv, plus the input; then the maximum of every three time steps.

    The public code also normalises and activates the input of all blocks but the first, and then
    convolves the raw input all the same. Its checkpoints were trained that way, so that norm does
    not exist here (see `Aasist.dead_weights`).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, (2, 3), padding=(1, 1))
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)
        self.activation: nn.Module = nn.SELU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, (2, 3), padding=(0, 1))
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, (1, 3), padding=(0, 1))
        self.pool = nn.MaxPool2d((1, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, out_channels, bands, time // 3)`` for ``x (batch, in_channels, bands, time)``."""
        y = self.conv2(self.activation(self.norm(self.conv1(x))))
        return self.pool(y + self.shortcut(x))

    def freeze(self) -> None:
        """Folds the norm into ``conv1`` and SELU's scale into ``conv2``, leaving one plain ELU."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv1 = fusion.fuse_conv_bn_eval(self.conv1, self.norm)
            self.norm = nn.Identity()
            self.activation = nn.ELU(SELU_ALPHA)
            self.conv2.weight.mul_(SELU_SCALE)


class WaveformEncoder(nn.Module):
    """Waveform to a map of ``channels[-1]`` features over 23 bands and about 7 frames a second."""

    def __init__(
        self, sinc_bands: int, sinc_taps: int, channels: Sequence[int], learnable_sinc: bool = False
    ) -> None:
        super().__init__()
        # The pooling below reads whole groups of three bands; bands beyond the last group are dead.
        self.bands = sinc_bands // 3
        sinc = LearnableSincConv if learnable_sinc else SincConv
        self.sinc = sinc(sinc_bands, sinc_taps, bands_used=3 * self.bands)
        self.pool = nn.MaxPool2d(3)
        self.norm = nn.BatchNorm2d(1)
        self.activation = nn.SELU()
        widths = [1, *channels]
        self.blocks = nn.Sequential(*map(ResidualBlock, widths[:-1], widths[1:]))

    def frames(self, samples: int) -> int:
        """Returns how many frames come out of ``samples``."""
        frames = (samples - self.sinc.taps + 1) // 3
        for _ in self.blocks:
            frames //= 3
        return frames

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns ``(batch, channels, bands, frames)`` for ``waveform (batch, samples)``."""
        x = self.sinc(waveform).abs()  # (batch, 3 * bands, samples')
        x = self.pool(x.unsqueeze(1))  # (batch, 1, bands, samples' // 3)
        return self.blocks(self.activation(self.norm(x)))


def strongest(x: Tensor, dim: int) -> Tensor:
    """Returns the largest magnitude of ``x`` along ``dim``."""
    return torch.amax(torch.abs(x), dim=dim)
