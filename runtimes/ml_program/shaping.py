"""Operations that move values: shapes, slices, joins and look-ups."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from antispoof.errors import UserError
from runtimes.ml_program.kinds import Bools, Ints, Tensor, Tensors, operation


@operation("reshape", exact=True)
def _reshape(x: Tensor, shape: Ints) -> Tensor:
    return x.reshape([x.shape[i] if size == 0 and x.numel() else size for i, size in enumerate(shape)])


@operation("expand_dims", exact=True)
def _expand_dims(x: Tensor, axes: Ints) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operation("squeeze", exact=True)
def _squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(axes)


@operation("transpose", exact=True)
def _transpose(x: Tensor, perm: Ints) -> Tensor:
    return x.permute(perm)


@operation("reverse", exact=True)
def _reverse(x: Tensor, axes: Ints | None = None) -> Tensor:
    return x.flip(tuple(range(x.dim())) if axes is None else axes)


@operation("tile", exact=True)
def _tile(x: Tensor, reps: Ints) -> Tensor:
    return x.repeat(reps)


@operation("fill", exact=True)
def _fill(shape: Ints, value: float = 0.0) -> Tensor:
    return torch.full(shape, value)


@operation("concat", exact=True)
def _concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    if interleave:  # the first of each, then the second of each
        axis %= values[0].dim()
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


@operation("stack", exact=True)
def _stack(values: Tensors, axis: int) -> Tensor:
    return torch.stack(values, axis)


@operation("split", exact=True)
def _split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return x.split(list(split_sizes), axis)
    return x.chunk(num_splits or 1, axis)


@operation("slice_by_index", exact=True)
def _slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints = (),
    begin_mask: Bools = (),
    end_mask: Bools = (),
    squeeze_mask: Bools = (),
) -> Tensor:
    """Python's slicing axis by axis, where a mask frees an end and ``squeeze_mask`` takes one index."""
    for axis in reversed(range(x.dim())):
        if squeeze_mask and squeeze_mask[axis]:
            x = x.select(axis, begin[axis])
            continue
        first = None if begin_mask and begin_mask[axis] else begin[axis]
        last = None if end_mask and end_mask[axis] else end[axis]
        step = stride[axis] if stride else 1
        start, stop, step = slice(first, last, step).indices(x.shape[axis])
        if (start, stop, step) == (0, x.shape[axis], 1):
            continue
        if step > 0:
            x = x[(slice(None),) * axis + (slice(start, stop, step),)]
        else:  # which PyTorch's own slices do not take
            x = x.index_select(axis, torch.arange(start, stop, step))
    return x


@operation("slice_by_size", exact=True)
def _slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    for axis, (first, length) in enumerate(zip(begin, size, strict=True)):
        x = x.narrow(axis, first, x.shape[axis] - first if length == -1 else length)
    return x


@operation("pad", exact=True)
def _pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    flat = [width for pair in reversed(pairs) for width in pair]  # PyTorch begins at the last axis
    if mode == "constant":
        return F.pad(x, flat, value=constant_val)
    while flat[-2:] == [0, 0]:
        del flat[-2:]  # PyTorch mirrors and repeats along the last axes only
    return F.pad(x, flat, mode={"reflect": "reflect", "replicate": "replicate"}[mode])


@operation("gather", exact=True)
def _gather(
    x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    if batch_dims:
        raise UserError("gather with batch_dims is not supported")
    axis %= x.dim()
    wrapped = _wrapped(indices, x.shape[axis])
    found = x.index_select(axis, wrapped.reshape(-1))
    return found.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@operation("gather_along_axis", exact=True)
def _gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False) -> Tensor:
    return torch.take_along_dim(x, _wrapped(indices, x.shape[axis]), axis)


def _wrapped(indices: Tensor, size: int) -> Tensor:
    """Counts negative indices from the end."""
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


@operation("topk", exact=True)
def _topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[Tensor, ...]:
    """Of equal values the earlier comes first; Core ML does not say."""
    values, indices = x.sort(dim=axis, descending=not ascending, stable=True)
    best = (values.narrow(axis, 0, k), indices.narrow(axis, 0, k).int())
    return best if return_indices else best[:1]


@operation("shape", exact=True)
def _shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)
