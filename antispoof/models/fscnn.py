"""Fine-structure CNN: a small depthwise-separable network on a log spectrum and its fine structure.

What gives neural vocoders and copy synthesis away is less the colour of the spectrum than its grain:
how each bin stands out from its neighbours. The network therefore reads two maps, the log power
spectrum and that spectrum minus its moving average over half a kilohertz, with the same weights at
every frequency. It is this project's own, made for phones: no operation that XNNPACK, QNN or Core ML
refuses, no pooling that depends on an order, and a front end that takes neither level nor the band
above 7.5 kHz, where resamplers differ and classes of a training set with them.

Depthwise-separable blocks: Howard et al., "MobileNets", arXiv 1704.04861; pooling of mean and standard
deviation over time: Snyder et al., "X-vectors", ICASSP 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fusion

from antispoof.errors import UserError
from antispoof.models.detector import BONAFIDE, SPOOF, Config, Detector, DetectorOutput, Split
from antispoof.models.layers.fine_spectrum import FineSpectrum
from antispoof.models.layers.power_spectrum import FRAME
from antispoof.models.registry import register

LEAST_VARIANCE = 1e-4
# Stride (frequency, time) of each convolution; there are as many channel numbers in the configuration.
STRIDES = ((2, 2), (2, 1), (2, 2), (1, 1), (2, 2), (1, 1), (2, 1), (1, 1))


@dataclass(frozen=True)
class FineStructureConfig(Config):
    """Sizes of the network."""

    bins: int = 240  # of 31.25 Hz, up to 7.5 kHz
    channels: tuple[int, ...] = (20, 40, 64, 64, 96, 96, 160, 160)
    dropout: float = 0.1


class ConvNorm(nn.Module):
    """Convolution without bias, norm, and a ReLU where wanted."""

    def __init__(self, convolution: nn.Conv2d, activate: bool) -> None:
        super().__init__()
        self.conv = convolution
        self.norm: nn.Module = nn.BatchNorm2d(convolution.out_channels)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, out_channels, bands', frames')`` of ``x (batch, in_channels, bands, frames)``."""
        y = self.norm(self.conv(x))
        return F.relu(y) if self.activate else y

    def freeze(self) -> None:
        """Folds the norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fusion.fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class SeparableBlock(nn.Module):
    """Depthwise 3x3, then 1x1 convolution, plus the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
        self.depthwise = ConvNorm(depthwise, activate=False)
        self.pointwise = ConvNorm(nn.Conv2d(in_channels, out_channels, 1, bias=False), activate=True)
        self.keeps_shape = in_channels == out_channels and stride == (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, out_channels, bands / stride, frames / stride)``, rounded up."""
        y = self.pointwise(self.depthwise(x))
        return x + y if self.keeps_shape else y


class FineStructureCnn(Detector):
    """Fine spectrum, depthwise-separable encoder, mean and deviation over time, one linear layer."""

    config: FineStructureConfig
    float32_parts = ("layers/fine_spectrum",)

    def __init__(self, config: FineStructureConfig) -> None:
        super().__init__()
        self.config = config
        self.clip_samples = config.clip_samples
        self.spectrum = FineSpectrum(config.bins)
        if config.clip_samples < FRAME:
            raise UserError(f"clip_samples is {config.clip_samples}; one frame needs {FRAME}")
        first, *_, last = config.channels
        stem = ConvNorm(nn.Conv2d(2, first, 3, STRIDES[0], 1, bias=False), activate=True)
        blocks = [
            SeparableBlock(*widths, stride)
            for widths, stride in zip(pairwise(config.channels), STRIDES[1:], strict=True)
        ]
        self.encoder = nn.Sequential(stem, *blocks)
        bands = config.bins
        for stride, _ in STRIDES:
            bands = -(-bands // stride)
        self.bands = ConvNorm(nn.Conv2d(last, last, (bands, 1), groups=last, bias=False), activate=False)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(2 * last, 2)

    def forward(self, waveform: Tensor) -> DetectorOutput:
        """Returns logits ``(batch, 2)`` and embedding ``(batch, 2 * channels[-1])``."""
        self.check_length(waveform)
        return self.classify_maps(self.spectrum(waveform))

    def classify_maps(self, maps: Tensor) -> DetectorOutput:
        """Returns what the network makes of its front end's maps ``(batch, 2, bins, frames)``."""
        return self.classify_columns(self.bands(self.encoder(maps)).squeeze(2))

    def classify_columns(self, columns: Tensor) -> DetectorOutput:
        """Returns what is concluded from the encoder's columns ``(batch, channels, time)``."""
        mean = columns.mean(dim=2)
        variance = (columns - mean.unsqueeze(2)).square().mean(dim=2)
        embedding = self.dropout(torch.cat([mean, (variance + LEAST_VARIANCE).sqrt()], dim=1))
        return DetectorOutput(self.classify(embedding), embedding)

    def score(self, output: DetectorOutput) -> Tensor:
        """Returns the log-odds ``(batch,)``: the difference of the logits, higher = bona fide."""
        return output.logits[:, BONAFIDE] - output.logits[:, SPOOF]

    def split(self, *, exact: bool) -> Split:
        """Returns spectrum and network, or, for the least work, an encoder that goes on and its pooling."""
        # Here, since that module is made of what this one defines.
        from antispoof.models.fscnn_columns import split_exactly, split_for_speed

        return split_exactly(self) if exact else split_for_speed(self)


@register("fscnn", clip_samples=16_000, channels=(8, 16, 16, 16, 24, 24, 32, 32))
def fscnn(**overrides: Any) -> FineStructureCnn:
    """Fine-structure CNN, made for phones: log spectrum and its grain, depthwise-separable convolutions."""
    return FineStructureCnn(FineStructureConfig(**overrides))
