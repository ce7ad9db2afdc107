"""Rounds the weights of a layer to integers, one scale per output channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from quantize.onnx_graph import OnnxGraph
from quantize.recipes import Recipe
from quantize.scope import Layer

LEAST_SCALE = 1e-20  # weights smaller than this times 127 are nothing, and as far from where float32 ends
SHRINKS = np.linspace(0.5, 1.0, 51)  # shares of the largest weight that the search lets the range end at


@dataclass(frozen=True)
class IntegerWeights:
    """``integers * scale`` are the weights; ``scale`` is (output channels,), spread along ``axis``."""

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]
    axis: int


def round_weights(
    weights: np.ndarray, axis: int, limit: int, least: NDArray[np.float64] | float = LEAST_SCALE
) -> IntegerWeights:
    """Returns the integers in -limit to limit, and the scale of each channel, of least squared error.

    Args:
        weights: Of any shape.
        axis: Along which the output channels lie.
        limit: The largest integer.
        least: The smallest scale that a channel may have, or that of each.
    """
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).astype(np.float64)
    largest = np.abs(rows).max(axis=1)
    largest[largest == 0] = 1.0
    # 127 steps leave nothing to gain by cutting off the largest weights; 7 do.
    shrinks = SHRINKS if limit < 63 else SHRINKS[-1:]
    # (channels, candidates)
    scales = (largest[:, None] * shrinks / limit).astype(np.float32).astype(np.float64)
    scales = np.maximum(scales, np.reshape(np.maximum(least, LEAST_SCALE), (-1, 1)))
    rounded = np.clip(np.rint(rows[:, :, None] / scales[:, None]), -limit, limit)
    error = ((rounded * scales[:, None] - rows[:, :, None]) ** 2).sum(axis=1)
    best = error.argmin(axis=1)
    chosen = np.take_along_axis(rounded, best[:, None, None], axis=2)[:, :, 0]
    shape = np.moveaxis(weights, axis, 0).shape
    integers = np.moveaxis(chosen.reshape(shape), 0, axis).astype(np.int8)
    return IntegerWeights(integers, scales[np.arange(len(best)), best].astype(np.float32), axis)


def store_weights(
    graph: OnnxGraph, layer: Layer, recipe: Recipe, least: NDArray[np.float64] | float = LEAST_SCALE
) -> NDArray[np.float32]:
    """Puts integers in the place of a layer's weights and returns their scales ``(output channels,)``.

    Layers that share their weights share the integers too; ``least`` is the same for all of them then.
    """
    integers, scale = _stored(graph, layer, recipe, least)
    result = f"{layer.weight}.rounded"
    if graph.producer(result) is None:
        graph.add("DequantizeLinear", [integers, scale], result, axis=layer.axis)
    graph.rename(layer.weight, result, [layer.node])
    return np.asarray(graph.constants[scale])


def fold_weights(graph: OnnxGraph, layer: Layer, recipe: Recipe) -> None:
    """Stores a layer's weights as integers that become float32 again when the file is loaded.

    By a Cast and a Mul, which ONNX Runtime computes once and for all, as it does not with DequantizeLinear:
    a float convolution behind that reads its weights anew in each run and misses the fast layout besides
    (AASIST-L: 182 instead of 120 ms).
    """
    integers, scale = _stored(graph, layer, recipe)
    result = f"{layer.weight}.restored"
    if graph.producer(result) is None:
        weights = graph.constants[layer.weight]
        shape = [-1 if axis == layer.axis else 1 for axis in range(weights.ndim)]
        column = graph.constant(graph.constants[scale].reshape(shape), f"{layer.weight}.column")
        graph.add("Mul", [graph.add("Cast", [integers], to=TensorProto.FLOAT), column], result)
    graph.rename(layer.weight, result, [layer.node])


def _stored(
    graph: OnnxGraph, layer: Layer, recipe: Recipe, least: NDArray[np.float64] | float = LEAST_SCALE
) -> tuple[str, str]:
    """Adds a layer's integers and their scale, unless they are there; returns both names."""
    integers, scale = f"{layer.weight}.integers", f"{layer.weight}.scale"
    if integers not in graph.constants:
        rounded = round_weights(graph.constants[layer.weight], layer.axis, recipe.weight_limit, least)
        graph.constant(_narrow(rounded.integers, recipe.weight_bits), integers)
        graph.constant(rounded.scale, scale)
    return integers, scale


def _narrow(integers: NDArray[np.int8], bits: int) -> np.ndarray:
    if bits == 8:
        return integers
    import ml_dtypes  # comes with onnx

    return integers.astype(ml_dtypes.int4)
