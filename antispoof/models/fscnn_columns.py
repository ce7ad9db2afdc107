"""The fine-structure CNN in halves, for streams: what is kept from one window to the next.

Power frames are 256 samples apart and know nothing of the window that they are in, but for its mean, which
moves two bins. All that follows does: the level is the window's, and so are the edges, which are in ten of 32
columns. Hence two cuts:

- exact: frames are kept, and the rest is computed for every window.
- fast: columns of 2048 samples are kept, each normalised by the window in which it was new: by the means of
  the frames as they were then. They are made by convolutions without padding in time, so none ever changes;
  the last five, whose future has not been heard, are left out. For a window that follows none, what came
  before it is taken to be of average colour and without grain.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoof.columns import Geometry
from antispoof.models.detector import Split
from antispoof.models.fscnn import STRIDES, ConvNorm, FineStructureCnn, SeparableBlock
from antispoof.models.layers.fine_spectrum import (
    FLOOR,
    LEAST_MEAN,
    SILENCE,
    maps_of_log,
    maps_of_power,
    mean_of_clip,
)
from antispoof.models.layers.power_spectrum import FRAME, HOP, PowerSpectrum

LEAKING = 2  # bins that a constant reaches through a Hann window, 0 and 1; both are real
LEAST_POWER = LEAST_MEAN * SILENCE**2  # a frame's, below which the whole network makes nothing louder either
# Blocks before which the encoder keeps what it needs to go on. Between, it computes a few columns twice: that
# costs less than handing on the input of every block does.
CUTS = (0, 4)
COLUMN_FRAMES = 8  # the product of the strides over time


def split_exactly(model: FineStructureCnn) -> Split:
    """Returns the halves that meet at the power frames."""
    power, samples = model.spectrum.power, model.clip_samples
    frames = power.frames(samples)
    geometry = Geometry(samples, HOP, frames, overlap=samples - frames * HOP)
    return Split(SpectrumFrames(power), FramesToScore(model), geometry, hears=True)


def split_for_speed(model: FineStructureCnn) -> Split:
    """Returns the halves that meet at the encoder's columns."""
    samples = model.clip_samples
    frames = model.spectrum.power.frames(samples)
    overlap = samples - frames * HOP
    geometry = Geometry(samples, COLUMN_FRAMES * HOP, _ready(frames)[-1], overlap)
    encoder = GoingEncoder(model, frames, overlap)
    return Split(encoder, ColumnsToScore(model), geometry, encoder.beginning())


class SpectrumFrames(nn.Module):
    """Waveform to frames: both parts of the bins that a constant reaches, the power of the others."""

    def __init__(self, power: PowerSpectrum) -> None:
        super().__init__()
        self.power = power

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns ``(batch, 1, bins + 2, frames)`` of ``waveform (batch, samples)``, its mean still in it."""
        real, imaginary = (part.flatten(1, 2).unsqueeze(1) for part in self.power.parts(waveform))
        power = real[:, :, LEAKING:].square() + imaginary[:, :, LEAKING:].square()
        return torch.cat([real[:, :, :LEAKING], imaginary[:, :, :LEAKING], power], dim=2)


class FramesToScore(nn.Module):
    """What follows `SpectrumFrames`, given the window's own mean and level."""

    constant: Tensor  # (1, 1, LEAKING, 1), the first bins of a waveform that is 1

    def __init__(self, model: FineStructureCnn) -> None:
        super().__init__()
        self.model = model
        real, _ = model.spectrum.power.parts(torch.ones(1, FRAME))
        self.register_buffer("constant", real.flatten(1, 2)[:, None, :LEAKING].detach().clone())

    def forward(self, frames: Tensor, waveform: Tensor) -> Tensor:
        """Returns the score ``(batch,)`` of the frames of ``waveform (batch, samples)``."""
        mean = mean_of_clip(waveform)
        level = mean_of_clip((waveform - mean).square()).sqrt() + SILENCE
        # Taken off before squaring: what is left may be far below the mean itself.
        real = frames[:, :, :LEAKING] - mean[:, :, None, None] * self.constant
        imaginary, others = frames[:, :, LEAKING : 2 * LEAKING], frames[:, :, 2 * LEAKING :]
        power = torch.cat([real.square() + imaginary.square(), others], dim=2)
        maps = maps_of_power(power / level.square()[:, :, None, None])
        return self.model.score(self.model.classify_maps(maps))


class GoingEncoder(nn.Module):
    """Front end and encoder for audio that goes on: reads new samples, returns new columns.

    It hands on the sums of samples, the mean powers and the mean logarithms of as many frames as a window
    has, and the ends of the maps that its parts have read.
    """

    def __init__(self, model: FineStructureCnn, frames: int, overlap: int) -> None:
        super().__init__()
        self.power = model.spectrum.power
        self.overlap = overlap
        self.frames = frames // COLUMN_FRAMES * COLUMN_FRAMES  # whole columns of them
        ready = _ready(frames)
        bands = [model.config.bins]
        for stride, _ in STRIDES:
            bands.append(-(-bands[-1] // stride))
        self.parts = nn.ModuleList()
        self.shapes: list[tuple[int, ...]] = []
        for start, stop in pairwise((*CUTS, len(STRIDES))):
            blocks = [UnpaddedBlock(model.encoder[index]) for index in range(start, stop)]
            self.parts.append(nn.Sequential(*blocks))
            kept = ready[start] - _first_read(ready[stop], start, stop)
            self.shapes.append((1, blocks[0].channels, kept, bands[start]))
        self.bands = _time_first(copy.deepcopy(model.bands))

    def beginning(self) -> tuple[Tensor, ...]:
        """Returns what it is given with a window that follows none."""
        statistics = [torch.zeros(1, 1, self.frames) for _ in range(3)]
        return (*statistics, *(torch.zeros(shape) for shape in self.shapes))

    def forward(
        self, waveform: Tensor, sums: Tensor, powers: Tensor, logs: Tensor, *maps: Tensor
    ) -> tuple[Tensor, ...]:
        """Returns columns ``(1, channels, time)`` of ``waveform (1, samples)``, and what it hands on."""
        columns = (waveform.shape[1] - self.overlap) // (COLUMN_FRAMES * HOP)
        waveform = waveform[:, -(self.overlap + columns * COLUMN_FRAMES * HOP) :]
        sums = self._append(sums, waveform[:, self.overlap :].reshape(1, 1, -1, HOP).sum(dim=3))
        mean = sums.sum(dim=2) / (self.frames * HOP)
        power = self.power(waveform - mean)
        powers = self._append(powers, power.mean(dim=2))
        log = torch.log(power / powers.mean(dim=2)[..., None, None].clamp(min=LEAST_POWER) + FLOOR)
        logs = self._append(logs, log.mean(dim=2))
        x = maps_of_log(log, logs.mean(dim=2)[..., None, None]).transpose(2, 3)
        ends = []
        for part, before in zip(self.parts, maps, strict=True):
            x = torch.cat([before, x], dim=2)
            ends.append(x[:, :, -before.shape[2] :])
            x = part(x)
        return self.bands(x).squeeze(3), sums, powers, logs, *ends

    def _append(self, old: Tensor, new: Tensor) -> Tensor:
        return torch.cat([old, new], dim=2)[..., -self.frames :]


class UnpaddedBlock(nn.Module):
    """A block of the encoder that reads no zeros before or after its input."""

    middle: Tensor | None  # of three columns, as a depthwise convolution

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = _time_first(copy.deepcopy(block))
        first = self.block.depthwise if isinstance(self.block, SeparableBlock) else self.block
        assert isinstance(first, ConvNorm)
        first.conv.padding = (0, 1)
        self.channels = first.conv.in_channels
        adds = isinstance(self.block, SeparableBlock) and self.block.keeps_shape
        middle = torch.tensor([[0.0], [1.0], [0.0]]).repeat(self.channels, 1, 1, 1) if adds else None
        self.register_buffer("middle", middle, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, out_channels, time', bands')`` of ``x (batch, in_channels, time, bands)``."""
        if not isinstance(self.block, SeparableBlock):
            return self.block(x)
        y = self.block.pointwise(self.block.depthwise(x))
        if self.middle is None:
            return y
        # Not x[:, :, 1:-1]: ONNX Runtime would turn the maps into another layout for it, and back.
        return y + F.conv2d(x, self.middle, groups=self.channels)


def _time_first(part: nn.Module) -> nn.Module:
    """Turns convolutions round, in place, for maps with time first, whose columns lie in one piece."""
    for conv in part.modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight = nn.Parameter(conv.weight.detach().transpose(2, 3).contiguous(), requires_grad=False)
            conv.stride, conv.padding = conv.stride[::-1], conv.padding[::-1]
    return part


class ColumnsToScore(nn.Module):
    """What follows `GoingEncoder`."""

    def __init__(self, model: FineStructureCnn) -> None:
        super().__init__()
        self.model = model

    def forward(self, columns: Tensor) -> Tensor:
        """Returns the score ``(batch,)`` of ``columns (batch, channels, time)``."""
        return self.model.score(self.model.classify_columns(columns))


def _ready(frames: int) -> list[int]:
    """Returns how many columns each block has to read, and the last one makes, that no zeros after are in."""
    ready = [frames]
    for _, stride in STRIDES:
        ready.append((ready[-1] - 2) // stride + 1)  # column n reads up to stride * n + 1
    return ready


def _first_read(column: int, start: int, stop: int) -> int:
    """Returns the first column before block ``start`` that ``column`` before block ``stop`` is made of."""
    for _, stride in reversed(STRIDES[start:stop]):
        column = stride * column - 1
    return column
