"""Softplus out of operations that every runtime has in vector form."""

from __future__ import annotations

import torch


def exportable_softplus(v: torch.Tensor) -> torch.Tensor:
    """Returns log(1 + exp(v)) without overflow and with small relative error even where it is tiny.

    ONNX Runtime's own ``Softplus`` works one number at a time, and its ``log1p`` is ``log(1 + u)``,
    which loses every digit of a small u. What the addition rounds away is added back: with w = 1 + u
    as rounded, log1p(u) = log(w) + (u - (w - 1)) to first order in the rounding error.
    """
    u = torch.exp(-torch.abs(v))
    w = u + 1.0
    return torch.relu(v) + (torch.log(w) + (u - (w - 1.0)))
