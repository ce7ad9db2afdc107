"""Residual encoder of RawNet2 and AASIST: six blocks over a time-frequency map of the waveform.

Tak et al., "End-to-end anti-spoofing with RawNet2", arXiv 2011.01108; arXiv 2110.01200, sec. 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fusion

from antispoof.columns import Geometry
from antispoof.errors import UserError
from antispoof.lowering import current_lowering
from antispoof.models.layers.primitives import SELU_ALPHA, SELU_SCALE, ScaledElu, cut
from antispoof.models.layers.sinc import LearnableSincConv, SincConv

HALO = 1  # columns that the zeros beyond an edge reach; `WaveformEncoder._in_tiles` says why no more
POOLED = 3  # time steps, or bands behind the sinc bank, that become one in each pooling
TILED_BLOCKS = 2  # hold nine tenths of the memory and four fifths of the work


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
        self.pool = nn.MaxPool2d((1, POOLED))

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, out_channels, bands, time // 3)`` for ``x (batch, in_channels, bands, time)``."""
        y = self.conv2(self.activation(self.norm(self.conv1(x))))
        return self.pool(y + self.shortcut(x))

    def freeze(self) -> None:
        """Folds the norm into ``conv1`` and SELU's scale into ``conv2``, leaving one plain ELU.

        Where the lowering has ELU with alpha 1 only, alpha goes into the convolutions on both sides
        (see `primitives.ScaledElu`).
        """
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv1 = fusion.fuse_conv_bn_eval(self.conv1, self.norm)
            self.norm = nn.Identity()
            self.activation = nn.ELU(SELU_ALPHA)
            self.conv2.weight.mul_(SELU_SCALE)
        if current_lowering().elu == "unit" and isinstance(self.activation, nn.ELU):
            for values in self.conv1.parameters():
                values.div_(SELU_ALPHA)
            self.activation = ScaledElu()
            self.conv2.weight.mul_(SELU_ALPHA)


class WaveformEncoder(nn.Module):
    """Waveform to a map of ``channels[-1]`` features over 23 bands and about 7 frames a second."""

    cuts_time = True  # see `antispoof.lowering.Lowering`

    def __init__(
        self, sinc_bands: int, sinc_taps: int, channels: Sequence[int], learnable_sinc: bool = False
    ) -> None:
        super().__init__()
        # The pooling below reads whole groups of bands; bands beyond the last group are dead.
        self.bands = sinc_bands // POOLED
        sinc = LearnableSincConv if learnable_sinc else SincConv
        self.sinc = sinc(sinc_bands, sinc_taps, bands_used=POOLED * self.bands)
        self.norm = nn.BatchNorm2d(1)
        self.activation: nn.Module = nn.SELU()
        widths = [1, *channels]
        self.blocks = nn.Sequential(*map(ResidualBlock, widths[:-1], widths[1:]))

    def frames(self, samples: int) -> int:
        """Returns how many frames come out of ``samples``."""
        return self._columns(samples, len(self.blocks))

    def geometry(self, samples: int, *, exact: bool) -> Geometry:
        """Returns how a window's samples become columns when only the new ones are computed.

        The zeros beyond a window's edges are in its first and its last column. Exactly, both are computed
        anew for every window; otherwise they stay what they were when they were last, or not yet first.
        """
        column, frames = POOLED ** (len(self.blocks) + 1), self.frames(samples)
        reach = self.sinc.taps - 1
        renewed = HALO if exact else 0  # what was last in the window before
        overlap = samples - (frames - renewed - HALO) * column
        edge = (HALO, 2 * HALO * column + reach) if exact else (0, 0)
        return Geometry(samples, column, frames, overlap, HALO, *edge)

    def check_clip(self, samples: int) -> None:
        """Refuses clips too short to leave one frame.

        Raises:
            UserError: ``samples`` is less than that.
        """
        if self.frames(samples) < 1:
            least = self.sinc.taps - 1 + 3 ** (len(self.blocks) + 1)
            raise UserError(f"clip_samples is {samples}; the encoder needs at least {least}")

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns ``(batch, channels, bands, frames)`` for ``waveform (batch, samples)``."""
        tiles = self._tiles(waveform.shape[1])
        if tiles == 1:
            return self.blocks(self._bands(waveform))
        tiled = min(TILED_BLOCKS, len(self.blocks))
        return self.blocks[tiled:](self._in_tiles(waveform, tiles, tiled))

    def freeze(self) -> None:
        """Folds SELU's factors into the layers around it where the lowering has ELU with alpha 1 only."""
        first = self.blocks[0]
        assert isinstance(first, ResidualBlock)
        readers = [conv for conv in (first.conv1, first.shortcut) if isinstance(conv, nn.Conv2d)]
        if len(readers) == 2 and current_lowering().elu == "unit" and isinstance(self.activation, nn.SELU):
            for values in self.norm.parameters():
                values.div_(SELU_ALPHA)
            self.activation = ScaledElu()
            for conv in readers:
                conv.weight.mul_(SELU_ALPHA * SELU_SCALE)

    def _bands(self, waveform: Tensor) -> Tensor:
        """Returns the map ``(batch, 1, bands, columns)`` that the blocks read."""
        x = self.sinc(waveform)
        x = (x if x.dim() == 4 else x.unsqueeze(2)).abs()  # (batch, POOLED * bands, 1, samples')
        # Time first: with the bands as channels, all of them are pooled at once.
        x = F.max_pool2d(x, (1, POOLED))
        x = x.view(x.shape[0], self.bands, POOLED, -1).amax(2)
        return self.activation(self.norm(x.unsqueeze(1)))

    def _columns(self, samples: int, blocks: int) -> int:
        """Returns how many columns the first ``blocks`` blocks make of ``samples``."""
        columns = (samples - self.sinc.taps + 1) // POOLED
        for _ in range(blocks):
            columns //= POOLED
        return columns

    def _tiles(self, samples: int) -> int:
        """Returns into how many tiles of time the lowering asks the first blocks to be cut."""
        how = current_lowering()
        if how.longest_axis is None:
            return how.time_tiles
        # A tile reads a column more on each side, and as many samples more as the filters are long.
        beyond = self.sinc.taps - 1 + 3 * POOLED ** (1 + min(TILED_BLOCKS, len(self.blocks)))
        return max(how.time_tiles, -(-samples // (how.longest_axis - beyond)))

    def _in_tiles(self, waveform: Tensor, tiles: int, blocks: int) -> Tensor:
        """Returns what the first ``blocks`` blocks make of ``waveform``, one tile of time after the other.

        The two convolutions of a block see two steps beyond an edge, of which pooling by three makes
        one wrong column (`HALO`), and with that column the next block again makes one. So each tile is
        computed with one column more than wanted on each side and that column is dropped.
        """
        samples = waveform.shape[1]
        step = POOLED**blocks  # columns of the blocks' input that become one of their output
        widest, width = self._columns(samples, 0), self._columns(samples, blocks)
        edges = [width * tile // tiles for tile in range(tiles + 1)]
        wanted = [(start, stop) for start, stop in pairwise(edges) if start < stop]
        spans = []
        for start, stop in wanted:
            last = widest if stop == width else (stop + 1) * step
            spans.append((POOLED * max(start - 1, 0) * step, POOLED * last + self.sinc.taps - 1))
        parts = []
        for (start, stop), tile in zip(wanted, cut(waveform, spans), strict=True):
            first = max(start - 1, 0)
            parts.append(self.blocks[:blocks](self._bands(tile))[..., start - first : stop - first])
        return torch.cat(parts, dim=3)


def strongest(x: Tensor, dim: int) -> Tensor:
    """Returns the largest magnitude of ``x`` along ``dim``."""
    if x.dim() == 4:
        # With the channels last, as phones' runtimes keep maps and as callers want the nodes.
        return torch.amax(torch.abs(x).permute(0, 2, 3, 1), dim=dim - 1).transpose(1, 2)
    return torch.amax(torch.abs(x), dim=dim)
