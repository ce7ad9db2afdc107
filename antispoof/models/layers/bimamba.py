"""Pre-norm bidirectional Mamba block, one Mamba serving both directions of time."""

from __future__ import annotations

from torch import Tensor, nn

from antispoof.models.layers.mamba import Mamba


class BiMambaBlock(nn.Module):
    """``x + FFN(LN(M(LN(x)) + backwards M(LN(x))))``: PN-BiMamba, with a single residual around all of it.

    Xiao et al., "Fake-Mamba: real-time speech deepfake detection using bidirectional Mamba as
    self-attention's alternative", arXiv 2508.09294.
    """

    def __init__(self, width: int, states: int = 16) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.mamba = Mamba(width, states)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, frames, width)`` for ``x (batch, frames, width)``."""
        mixed: Tensor = self.feed_forward(self.norm2(self.mamba.both_ways(self.norm1(x))))
        return x + mixed
