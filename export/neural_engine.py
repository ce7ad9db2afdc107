"""A traced network in the operations that Apple's Neural Engine is known to take.

`antispoof.lowering.NEURAL_ENGINE` says most of it while the network is traced. What is here needs to know
nothing of the network: convolutions and linear layers put another way, with the same sums. What the engine
takes, and where that was read, stands in export/support/ane.toml; what of a package it would leave to other
processors is counted by export/placement.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from antispoof.lowering import NEURAL_ENGINE

MOST_TAPS = 13
# Layers of this many weights are worth the two transposes that a convolution in their place takes. In
# AASIST none is: its linear layers are 0.03 % of its products, and would bring 67 transposes.
WIDE_LAYER = 1 << 16

aten = torch.ops.aten


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """A large layer over the last axis as a 1x1 convolution, which is what the engine is made for."""
    if weight.numel() < WIDE_LAYER or x.dim() not in (3, 4):
        return NotImplemented
    kernel = weight[:, :, None, None]
    if x.dim() == 4:
        return torch.conv2d(x.permute(0, 3, 1, 2), kernel, bias).permute(0, 2, 3, 1)
    return torch.conv2d(x.transpose(1, 2).unsqueeze(2), kernel, bias).squeeze(2).transpose(1, 2)


def _convolution(convolve: Callable[..., Tensor], axes: int) -> Callable[..., Any]:
    """Returns the rule for convolutions over so many axes."""

    def rewrite(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Sequence[int] = (1,),
        padding: Sequence[int] = (0,),
        dilation: Sequence[int] = (1,),
        groups: int = 1,
    ) -> Any:
        step, padded, spread = (list(value) * (axes // len(value)) for value in (stride, padding, dilation))
        plain = spread[-1] == 1
        assert NEURAL_ENGINE.longest_axis is not None
        is_long = x.shape[-1] > NEURAL_ENGINE.longest_axis
        if plain and is_long and axes == 1 and step[0] > 1 and (groups, padded) == (1, [0]):
            return convolve(*_in_steps(x, weight, step[0]), bias)
        if plain and weight.shape[-1] > MOST_TAPS:
            x = F.pad(x, (padded[-1], padded[-1])) if padded[-1] else x
            x, weight = _side_by_side(x, weight, groups)
            return convolve(x, weight, bias, step, [*padded[:-1], 0], spread, groups)
        return NotImplemented

    return rewrite


def _in_steps(x: Tensor, weight: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Lays ``x (batch, channels, samples)`` out in rows of one step each, as channels.

    A convolution that moves by ``step`` over a whole waveform is one that moves by one row over these,
    whose axis of time is shorter by that factor.
    """
    columns = -(-weight.shape[2] // step)  # that a filter covers
    rows = (x.shape[2] - weight.shape[2]) // step + columns
    x = F.pad(x, (0, max(rows * step - x.shape[2], 0)))[:, :, : rows * step]
    weight = F.pad(weight, (0, columns * step - weight.shape[2]))
    return (
        x.unflatten(2, (rows, step)).transpose(2, 3).flatten(1, 2),
        weight.unflatten(2, (columns, step)).transpose(2, 3).flatten(1, 2),
    )


def _side_by_side(x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Cuts long filters into pieces that work on shifted copies of ``x``, as if on more channels."""
    taps = weight.shape[-1]
    shifts = [(first, min(first, taps - MOST_TAPS)) for first in range(0, taps, MOST_TAPS)]
    reach = x.shape[-1] - taps + MOST_TAPS
    copies = [x[..., shift : shift + reach] for _, shift in shifts]
    # The last piece begins early enough to be as long as the others; what they have already is 0 in it.
    pieces = [F.pad(weight[..., first : shift + MOST_TAPS], (first - shift, 0)) for first, shift in shifts]
    if groups == 1:
        return torch.cat(copies, dim=1), torch.cat(pieces, dim=1)
    return torch.stack(copies, dim=2).flatten(1, 2), torch.stack(pieces, dim=2).flatten(1, 2)


# What is rewritten; NotImplemented leaves an operation as it is.
TABLE: dict[Any, Callable[..., Any]] = {
    aten.linear.default: _linear,
    aten.conv1d.default: _convolution(torch.conv1d, 1),
    aten.conv2d.default: _convolution(torch.conv2d, 2),
}
