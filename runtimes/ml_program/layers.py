"""Operations with weights or windows: products, convolutions, pools and norms."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from antispoof.errors import UserError
from runtimes.ml_program.kinds import Ints, Tensor, Tensors, operation

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@operation("linear")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


@operation("matmul")
def _matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    return torch.matmul(x.transpose(-1, -2) if transpose_x else x, y.transpose(-1, -2) if transpose_y else y)


@operation("einsum")
def _einsum(values: Tensors, equation: str) -> Tensor:
    return torch.einsum(equation, values)


@operation("conv")
def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints = (),
    pad_type: str = "valid",
    pad: Ints = (),
    dilations: Ints = (),
    groups: int = 1,
) -> Tensor:
    rank = x.dim() - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    kernel = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilations, strict=True)]
    x, padding = _padded(x, _widths(x, kernel, strides, pad_type, pad), 0.0)
    return CONVOLUTIONS[rank](x, weight, bias, strides, padding, dilations, groups)


@operation("max_pool", exact=True)
def _max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints = (),
    pad_type: str = "valid",
    pad: Ints = (),
    ceil_mode: bool = False,
) -> Tensor:
    rank = x.dim() - 2
    strides = strides or (1,) * rank
    x, padding = _padded(x, _widths(x, kernel_sizes, strides, pad_type, pad), -torch.inf, kernel_sizes)
    return MAX_POOLS[rank](x, kernel_sizes, strides, padding, ceil_mode=ceil_mode)


@operation("avg_pool")
def _avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    strides: Ints = (),
    pad_type: str = "valid",
    pad: Ints = (),
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    rank = x.dim() - 2
    strides = strides or (1,) * rank
    widths = _widths(x, kernel_sizes, strides, pad_type, pad)
    if any(
        before != after or 2 * before > size
        for (before, after), size in zip(widths, kernel_sizes, strict=True)
    ):
        raise UserError("avg_pool with uneven padding is not supported")
    padding = tuple(before for before, _ in widths)
    return MEAN_POOLS[rank](
        x, kernel_sizes, strides, padding, ceil_mode, count_include_pad=not exclude_padding_from_average
    )


def _widths(
    x: Tensor, kernel: Ints | list[int], strides: Ints, pad_type: str, pad: Ints
) -> list[tuple[int, int]]:
    """Returns how far each axis is padded before and after, as MIL's four ways of saying it mean."""
    if pad_type == "valid":
        return [(0, 0)] * len(kernel)
    if pad_type == "custom":
        return list(zip(pad[::2], pad[1::2], strict=True))
    if pad_type not in ("same", "same_lower"):
        raise UserError(f"pad_type {pad_type!r} is not supported")
    widths = []
    for size, window, step in zip(x.shape[2:], kernel, strides, strict=True):
        total = max((-(-size // step) - 1) * step + window - size, 0)
        less, more = total // 2, total - total // 2
        widths.append((less, more) if pad_type == "same" else (more, less))
    return widths


def _padded(
    x: Tensor, widths: list[tuple[int, int]], value: float, kernel: Ints | None = None
) -> tuple[Tensor, Ints]:
    """Returns ``x`` and what its operation may pad itself, padding here what that cannot."""
    even = all(before == after for before, after in widths)
    if even and (
        kernel is None or all(2 * width[0] <= size for width, size in zip(widths, kernel, strict=True))
    ):
        return x, tuple(before for before, _ in widths)
    flat = [width for pair in reversed(widths) for width in pair]
    return F.pad(x, flat, value=value), (0,) * len(widths)


@operation("batch_norm")
def _batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon)


@operation("instance_norm")
def _instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    return F.instance_norm(x, None, None, gamma, beta, True, 0.0, epsilon)


@operation("layer_norm")
def _layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    axes = tuple(range(x.dim())) if axes is None else tuple(sorted(axis % x.dim() for axis in axes))
    if axes == tuple(range(x.dim() - len(axes), x.dim())):
        return F.layer_norm(x, [x.shape[axis] for axis in axes], gamma, beta, epsilon)
    centred = x - x.mean(axes, keepdim=True)
    normal = centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + epsilon)
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    normal = normal if gamma is None else normal * gamma.reshape(shape)
    return normal if beta is None else normal + beta.reshape(shape)
