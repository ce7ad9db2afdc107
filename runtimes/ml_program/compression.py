"""Weights stored in fewer bits, and activations in eight.

Kinds that begin with ``constexpr_`` are constants in disguise: Core ML opens them when the model is
loaded. iOS 16 stored them flat, with a ``shape`` beside; iOS 18 lets tables and scales differ by block.
"""

from __future__ import annotations

import torch

from runtimes.ml_program.elementwise import DTYPES
from runtimes.ml_program.kinds import Ints, Tensor, operation

RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


@operation("quantize", exact=True)
def _quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    low, high = RANGES[output_dtype]
    steps = torch.round(input / _along(scale, input, axis)) + _along(zero_point, input, axis)
    return steps.clamp(low, high).to(DTYPES[output_dtype])


@operation("dequantize")
def _dequantize(
    input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    return (input.float() - _along(zero_point, input, axis)) * _along(scale, input, axis)


@operation("constexpr_affine_dequantize")
def _affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int) -> Tensor:
    return _dequantize(quantized_data, scale, zero_point, axis)


def _along(values: Tensor | None, x: Tensor, axis: int | None) -> Tensor:
    """Returns one value for all of ``x``, or one for each place along ``axis``, ready to broadcast."""
    if values is None:
        return torch.zeros(())
    if not values.dim():
        return values.float()
    shape = [1] * x.dim()
    shape[axis or 0] = -1
    return values.float().reshape(shape)


@operation("constexpr_cast")
def _constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    return source_val.to(DTYPES[output_dtype])


@operation("constexpr_blockwise_shift_scale")
def _shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    shifted = data.float() if offset is None else data.float() - _per_block(offset.float(), data)
    return shifted * _per_block(scale, data)


def _per_block(values: Tensor, data: Tensor) -> Tensor:
    """Repeats each value over the block of ``data`` that it is for."""
    for axis, (many, few) in enumerate(zip(data.shape, values.shape, strict=True)):
        if many != few:
            values = values.repeat_interleave(many // few, axis)
    return values


@operation("constexpr_lut_to_dense")
def _lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Ints | None = None, vector_axis: int | None = None
) -> Tensor:
    if shape is not None:
        width = (len(lut) - 1).bit_length()
        bits = _bits(indices)[: width * _count(shape)].reshape(-1, width)
        return lut[(bits << torch.arange(width)).sum(1)].reshape(shape)
    entries, vector = lut.shape[-2:]
    # Each place knows its block's table: the tables in a row, and where in that row its own begins.
    tables = lut.reshape(-1, vector)
    first = torch.arange(len(tables) // entries).reshape(lut.shape[:-2]) * entries
    dense = tables[_per_block(first, indices) + indices.long()]  # (*indices.shape, vector)
    if vector == 1:
        return dense.squeeze(-1)
    axis = (vector_axis or 0) % indices.dim()
    return dense.movedim(-1, axis + 1).flatten(axis, axis + 1)


@operation("constexpr_sparse_to_dense")
def _sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Ints | None = None) -> Tensor:
    if shape is not None:
        mask = _bits(mask)[: _count(shape)].reshape(shape)
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    dense[mask.bool()] = nonzero_data
    return dense


@operation("constexpr_lut_to_sparse")
def _lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, vector_axis: int | None = None
) -> tuple[Tensor, Tensor]:
    dense = _lut_to_dense(_sparse_to_dense(indices_nonzero_data, indices_mask), lut, None, vector_axis)
    vector = lut.shape[-1]
    mask = indices_mask if vector == 1 else indices_mask.repeat_interleave(vector, vector_axis)
    return mask, dense[mask.bool()]


@operation("constexpr_sparse_blockwise_shift_scale")
def _sparse_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    dense = _shift_scale(_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask.bool()]


def _bits(packed: Tensor) -> Tensor:
    """Returns the bits of bytes, the lowest first."""
    return ((packed.long().reshape(-1, 1) >> torch.arange(8)) & 1).reshape(-1)


def _count(shape: Ints) -> int:
    return int(torch.tensor(shape).prod())
