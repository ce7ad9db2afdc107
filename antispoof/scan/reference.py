"""The plain loop: one step after the other, at any precision, slow and beyond doubt."""

from __future__ import annotations

import torch


def reference_scan(
    x: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, reverse: bool
) -> torch.Tensor:
    """Returns C . h, (batch, length, channels), step by step; autograd goes through it."""
    length = x.shape[1]
    h = x.new_zeros(x.shape[0], A.shape[1], x.shape[2])
    ys: list[torch.Tensor] = [x[:, 0]] * length
    for t in reversed(range(length)) if reverse else range(length):
        decay = torch.exp(delta[:, t, None] * A.t())
        h = decay * h + B[:, t, :, None] * (delta[:, t] * x[:, t])[:, None]
        ys[t] = (C[:, t, :, None] * h).sum(1)
    return torch.stack(ys, 1)
