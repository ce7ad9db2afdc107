"""Two streams of frames become one: a fine one from WavLM and a coarse one from the sinc bank.

Squeeze and excitation is Hu et al., arXiv 1709.01507, sec. 3, over time instead of over a picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DROPOUT = 0.1


class SqueezeExcitation(nn.Module):
    """Weighs the channels by a gate that sees their means over time."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, width // reduction, bias=False)
        self.excite = nn.Linear(width // reduction, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x (batch, frames, width)``, each channel times its weight between 0 and 1."""
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean(dim=1, keepdim=True)))))


class DualStreamFusion(nn.Module):
    """Normalises and projects both streams, stretches the coarse one, joins them and weighs the channels."""

    def __init__(self, fine_width: int, coarse_width: int, width: int, se_reduction: int = 16) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.LayerNorm(fine_width), nn.Linear(fine_width, width))
        self.coarse = nn.Sequential(nn.LayerNorm(coarse_width), nn.Linear(coarse_width, width))
        self.join = nn.Linear(2 * width, width)
        self.weigh = SqueezeExcitation(width, se_reduction)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Returns ``(batch, fine frames, width)``.

        Args:
            fine: ``(batch, fine frames, fine_width)``.
            coarse: ``(batch, coarse frames, coarse_width)``, over the same time.
        """
        stretched = stretch(self.coarse(coarse), fine.shape[1])
        joined = self.join(torch.cat([self.fine(fine), stretched], dim=-1))
        return self.dropout(self.norm(self.weigh(joined)))


def stretch(x: Tensor, frames: int) -> Tensor:
    """Returns ``x (batch, coarse frames, width)`` with its nearest frames repeated to ``frames``.

    The numbers of ``interpolate(mode="nearest")`` as a product with a constant one-hot matrix:
    phone delegates lack a resize of sequences, and a gather cuts their graph in pieces.
    """
    coarse = torch.arange(x.shape[1], device=x.device)
    nearest = torch.arange(frames, device=x.device) * x.shape[1] // frames
    return (nearest[:, None] == coarse).to(x.dtype) @ x
