"""Pooling over time by a learned weight per frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """The mean over frames, weighted by a softmax of one linear score per frame.

    Okabe et al., "Attentive statistics pooling for deep speaker embedding", arXiv 1803.10963, eq. 1 to
    3, with a linear score and the mean alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, width)`` for ``x (batch, frames, width)``, in whichever order of frames."""
        weight = torch.softmax(self.score(x), dim=1)  # (batch, frames, 1)
        return (weight.transpose(1, 2) @ x).squeeze(1)
