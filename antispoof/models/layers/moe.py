"""Switch mixture of experts: each frame is a weighted sum of the few feed-forward networks that fit it best.

Fedus et al., "Switch transformers", arXiv 2101.03961, sec. 2.1, with two experts per frame as in
Shazeer et al., arXiv 1701.06538, eq. 3 to 5.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from antispoof.models.layers.graph import rank_descending
from antispoof.models.layers.primitives import is_below

EPSILON = 1e-6  # as the public code has it, in the sum of the kept weights


class SwitchMoE(nn.Module):
    """All experts run on all frames and the gate weighs them; what is not among the best weighs 0.

    Running the experts densely costs what it costs, but keeps the graph static: no sorting, no
    scattering, no data-dependent shape.
    """

    def __init__(self, width: int, hidden: int, experts: int = 4, kept: int = 2) -> None:
        super().__init__()
        self.kept = kept
        self.gate = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, frames, width)`` for ``x (batch, frames, width)``."""
        weights = self.weights(x).unbind(dim=-1)
        parts = (w.unsqueeze(-1) * expert(x) for w, expert in zip(weights, self.experts, strict=True))
        return reduce(torch.add, parts)

    def weights(self, x: Tensor) -> Tensor:
        """Returns how much of each expert goes into each frame, ``(batch, frames, experts)``."""
        likely = torch.softmax(self.gate(x), dim=-1)
        rank = rank_descending(likely.flatten(0, 1).unsqueeze(-1)).view_as(likely)
        best = likely * is_below(rank, self.kept)
        return best / (best.sum(dim=-1, keepdim=True) + EPSILON)
