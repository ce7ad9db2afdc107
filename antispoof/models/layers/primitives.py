"""The few operations that runtimes differ in, each in the words of the current lowering.

See `antispoof.lowering`. All forms of an operation give the same numbers up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoof.lowering import current_lowering

# Self-normalising networks, arXiv 1706.02515, eq. 14: selu(x) = SELU_SCALE * elu(x, SELU_ALPHA)
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805

# Takes the smallest normal float32 beyond 1, and no difference of two probabilities to infinity.
STEEP = 1e38
# Twice in a row, with the result clamped to 1 in between, it takes any difference of two half precision
# numbers to 1 or -1 and stays within their range.
STEEP_HALF = 2.0**15


def selu(x: Tensor) -> Tensor:
    """Returns SELU of ``x``."""
    if current_lowering().elu == "native":
        return F.selu(x)
    return SELU_SCALE * SELU_ALPHA * scaled_elu(x / SELU_ALPHA)


def scaled_elu(x: Tensor) -> Tensor:
    """Returns ``elu(SELU_ALPHA * x, SELU_ALPHA) / SELU_ALPHA``, out of an ELU whose alpha is 1.

    For ``x >= 0`` that is ``x``, otherwise ``exp(SELU_ALPHA * x) - 1``: a leaky ReLU makes the one
    argument out of the other.
    """
    return F.elu(F.leaky_relu(x, SELU_ALPHA))


class ScaledElu(nn.Module):
    """What is left of SELU where the layers in front and behind have taken up its factors."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns `scaled_elu` of ``x``."""
        return scaled_elu(x)


def ahead(score: Tensor, other: Tensor, wins_ties: Tensor) -> Tensor:
    """Returns 1 where ``score > other``, or where they are equal and ``wins_ties``, and 0 elsewhere.

    Args:
        score: Values between 0 and 1.
        other: Likewise, broadcast against ``score``.
        wins_ties: A boolean constant.
    """
    how = current_lowering().compare
    if how == "native":
        return ((score > other) | ((score == other) & wins_ties)).to(score.dtype)
    if how == "half":
        return ahead_by(score - other, wins_ties)
    return _between_0_and_1((score - other) * STEEP + wins_ties.to(score.dtype))


def ahead_by(margin: Tensor, wins_ties: Tensor) -> Tensor:
    """Returns `ahead` for scores that differ by ``margin``, in clamps and products of half precision."""
    for _ in range(2):
        margin = STEEP_HALF * margin.clamp(-1, 1)
    return (margin.clamp(-1, 1) + wins_ties.to(margin.dtype)).clamp(0, 1)


def is_equal(x: Tensor, y: Tensor) -> Tensor:
    """Returns 1 where the whole numbers ``x`` and ``y`` are equal, and 0 elsewhere, in the type of ``x``."""
    if current_lowering().compare == "native":
        return (x == y).to(x.dtype)
    return torch.relu(1 - torch.abs(x - y))


def is_below(x: Tensor, limit: int) -> Tensor:
    """Returns 1 where the whole numbers ``x`` are below ``limit``, and 0 elsewhere, in the type of ``x``."""
    if current_lowering().compare == "native":
        return (x < limit).to(x.dtype)
    return _between_0_and_1(limit - x)


def cut(waveform: Tensor, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Returns the samples from the first up to the second number of each span.

    They are ``(batch, samples)`` each, as ``waveform`` is. Where the lowering limits how long an axis may
    be, a longer waveform is folded into the rows of a map, and its parts are maps of one row, ``(batch,
    1, 1, samples)``: the operation that folds is then the only one to see an axis of that length.
    """
    limit, length = current_lowering().longest_axis, waveform.shape[1]
    if limit is None or length <= limit:
        return [waveform[:, start:stop] for start, stop in spans]
    rows = -(-length // limit)
    row = -(-length // rows)
    whole = F.pad(waveform, (0, rows * row - length)) if length % rows else waveform
    folded = whole.view(-1, 1, rows, row)
    return [torch.cat(_across_rows(folded, start, stop), dim=3) for start, stop in spans]


def _across_rows(folded: Tensor, start: int, stop: int) -> list[Tensor]:
    row = folded.shape[3]
    return [
        folded[:, :, index : index + 1, max(start - index * row, 0) : min(stop - index * row, row)]
        for index in range(start // row, -(-stop // row))
    ]


def _between_0_and_1(x: Tensor) -> Tensor:
    # Not as a clamp: TFLite has an operation for just this one, and XNNPACK does not take it.
    return 1 - torch.relu(1 - torch.relu(x))
