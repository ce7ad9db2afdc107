"""Computes what quantization has left in float in float64, so that every processor gives the same score.

Integers add up to the same everywhere; float32 sums depend on their order, and that on the width of the
processor's registers. The differences are tiny, but where they cross the border between two integers they
come out as a whole step: in fscnn's log spectrum that is 1 value of 5,000, and 0.01 of the score. In float64
they are a billion times smaller: rounding to the next integer, or to the float32 of the score, hides them.

ONNX Runtime has no float64 kernel for some operations; `LOWERED` has them in others that it has. A
convolution becomes a matrix product over the values that each of its outputs sees, all written out: cheap for
the few and small ones that quantization leaves, not for a whole network.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, shape_inference

from antispoof.errors import UserError
from quantize.onnx_graph import OnnxGraph, attribute
from quantize.scope import RECURRENT

LARGEST_WRITTEN_OUT = 2**24  # values that the outputs of a convolution may see: 128 MiB
INTEGER_KERNELS = ("MatMul", "Gemm")  # read integers and return float
SELU_ALPHA, SELU_GAMMA = 1.6732632423543772, 1.0507009873554805  # of the operator's definition
PAIR = ("QuantizeLinear", "DequantizeLinear")
WIDE = ".f64"

Shape = tuple[int, ...]
ShapeOf = Callable[[str], Shape]


def to_float64(model: ModelProto) -> ModelProto:
    """Returns a quantized model whose float operations work in float64; inputs and output stay float32.

    Raises:
        UserError: An operation is too large for it, or has graphs of its own.
    """
    return _Widener(model).widen()


class _Widener:
    def __init__(self, model: ModelProto) -> None:
        self.graph = OnnxGraph(model)
        self.shapes = _float_shapes(model)
        self.wide: set[str] = set()  # values that exist in float64 too

    def widen(self) -> ModelProto:
        for node in list(self.graph.nodes):
            if node.op_type in PAIR or not any(self._is_float(name) for name in node.input):
                continue
            if not self._on_integers(node):
                self._widen(node)
            elif node.op_type == "Add":
                # The kernel that adds integers multiplies and adds in one rounding where the processor can.
                # A Sum is the same to ONNX, but no part of it: one rounding for each step, everywhere.
                node.op_type = "Sum"
        return self.graph.finish()

    def _is_float(self, name: str) -> bool:
        constant = self.graph.constants.get(name)
        return name in self.shapes if constant is None else constant.dtype == np.float32

    def _shape_of(self, name: str) -> Shape:
        return self.shapes[name] if name in self.shapes else self.graph.constants[name].shape

    def _on_integers(self, node: NodeProto) -> bool:
        """Whether ONNX Runtime computes a node on the integers around it."""
        sources = [self.graph.producer(name) for name in node.input if self._is_float(name)]
        if not all(source is not None and source.op_type == "DequantizeLinear" for source in sources):
            return False
        readers = [reader for name in node.output for reader in self.graph.consumers(name)]
        return node.op_type in INTEGER_KERNELS or all(row.op_type == "QuantizeLinear" for row in readers)

    def _widen(self, node: NodeProto) -> None:
        """Makes a node compute in float64; who needs its results in float32 finds them under their names."""
        if any(row.HasField("g") for row in node.attribute):
            raise UserError(f"-f64 does not reach into {node.op_type} {node.name}; use another recipe")
        if node.op_type in RECURRENT:
            raise UserError(f"-f64 has no kernel for {node.op_type} {node.name}; use another recipe")
        inputs = [self._widened(name) if self._is_float(name) else name for name in node.input]
        results = [name for name in node.output if name in self.shapes]
        lower = LOWERED.get(node.op_type)
        if lower is None:
            node.input[:] = inputs
            node.output[:] = [name + WIDE * (name in self.shapes) for name in node.output]
            for row in node.attribute:
                if node.op_type == "Cast" and row.i == TensorProto.FLOAT:
                    row.i = TensorProto.DOUBLE
        else:
            self.graph.remove(node)
            value = lower(self.graph, node, inputs, self._shape_of)
            self.graph.add("Identity", [value], node.output[0] + WIDE)
        for name in results:
            self.wide.add(name)
            self.graph.add("Cast", [name + WIDE], name, to=TensorProto.FLOAT)

    def _widened(self, name: str) -> str:
        """Returns the float64 form of a value, made here where no node has made it.

        A constant stays as small as it was: ONNX Runtime widens it once, when it loads the file.
        """
        if name not in self.wide:
            self.wide.add(name)
            self.graph.add("Cast", [name], name + WIDE, to=TensorProto.DOUBLE)
        return name + WIDE


def _float_shapes(model: ModelProto) -> dict[str, Shape]:
    """Returns the shape of every float32 tensor that is no constant; 0 stands for an unknown size."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    return {
        row.name: tuple(size.dim_value for size in row.type.tensor_type.shape.dim)
        for row in (*inferred.value_info, *inferred.input, *inferred.output)
        if row.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _conv(graph: OnnxGraph, node: NodeProto, inputs: list[str], shape_of: ShapeOf) -> str:
    """Adds a convolution as a matrix product with the values that each output sees."""
    source, result = shape_of(node.input[0]), shape_of(node.output[0])
    axes = len(source) - 2
    kernel, groups = attribute(node, "kernel_shape"), attribute(node, "group", 1)
    strides, dilations = (attribute(node, name, [1] * axes) for name in ("strides", "dilations"))
    pads = attribute(node, "pads", [0] * 2 * axes)
    outputs = result[2:]
    seen_by_one = source[1] // groups * math.prod(kernel)
    if 0 in source[1:] or seen_by_one * groups * math.prod(outputs) > LARGEST_WRITTEN_OUT:
        raise UserError(f"-f64 has no kernel for the large float convolution {node.name}; use another recipe")
    value = _padded(graph, inputs[0], [0, 0, *pads[:axes], 0, 0, *pads[axes:]])
    if math.prod(kernel) * math.prod(strides) > 1:
        for axis in reversed(range(axes)):  # each becomes two: taps, outputs
            taps = graph.constant(np.arange(kernel[axis])[:, None] * dilations[axis])
            starts = _range(graph, outputs[axis] * strides[axis], strides[axis])
            seen = graph.add("Add", [taps, starts])
            value = graph.add("Gather", [value, seen], axis=axis + 2)
        value = graph.add(
            "Transpose", [value], perm=[0, 1, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2)]
        )
    value = _reshaped(graph, value, [-1, groups, seen_by_one, math.prod(outputs)])
    filters = _reshaped(graph, inputs[1], [groups, -1, seen_by_one])
    value = _reshaped(graph, graph.add("MatMul", [filters, value]), [-1, *result[1:]])
    if len(inputs) > 2:
        value = graph.add("Add", [value, _reshaped(graph, inputs[2], [-1, *[1] * axes])])
    return value


def _average_pool(graph: OnnxGraph, node: NodeProto, inputs: list[str], shape_of: ShapeOf) -> str:
    """Adds a moving average as the difference of two running sums, axis by axis."""
    source, outputs = shape_of(node.input[0]), shape_of(node.output[0])[2:]
    axes = len(source) - 2
    kernel, strides = attribute(node, "kernel_shape"), attribute(node, "strides", [1] * axes)
    pads = attribute(node, "pads", [0] * 2 * axes)
    value = inputs[0]
    for axis in range(axes):
        first = np.arange(outputs[axis]) * strides[axis] - pads[axis]
        ends = [np.clip(end, 0, source[axis + 2]) for end in (first, first + kernel[axis])]
        if kernel[axis] == strides[axis] == 1:
            continue
        value = _padded(graph, value, [int(row == axis + 2 + len(source)) for row in range(2 * len(source))])
        value = graph.add("CumSum", [value, graph.constant(np.int64(axis + 2))], exclusive=1)
        start, end = (graph.add("Gather", [value, graph.constant(row)], axis=axis + 2) for row in ends)
        counted = ends[1] - ends[0] if not attribute(node, "count_include_pad", 0) else kernel[axis]
        share = np.broadcast_to(1 / counted, outputs[axis]).reshape(-1, *[1] * (axes - 1 - axis))
        value = graph.add("Mul", [graph.add("Sub", [end, start]), graph.constant(share)])
    return value


def _elu(graph: OnnxGraph, node: NodeProto, inputs: list[str], shape_of: ShapeOf) -> str:
    """Adds ``gamma (max(x, 0) + alpha (exp(min(x, 0)) - 1))``, with a gamma of 1 unless it is a Selu."""
    selu = node.op_type == "Selu"
    alpha = attribute(node, "alpha", SELU_ALPHA if selu else 1.0)
    gamma = attribute(node, "gamma", SELU_GAMMA) if selu else 1.0
    zero, one, slope, scale = (graph.constant(np.float64(x)) for x in (0, 1, alpha * gamma, gamma))
    negative = graph.add("Sub", [graph.add("Exp", [graph.add("Min", [inputs[0], zero])]), one])
    positive = graph.add("Mul", [graph.add("Max", [inputs[0], zero]), scale])
    return graph.add("Add", [positive, graph.add("Mul", [negative, slope])])


def _range(graph: OnnxGraph, stop: int, step: int) -> str:
    """Adds the numbers 0, step, ... below ``stop``, made when the file is loaded, so that it stays small."""
    return graph.add("Range", [graph.constant(np.int64(value)) for value in (0, stop, step)])


def _padded(graph: OnnxGraph, value: str, pads: list[int]) -> str:
    return graph.add("Pad", [value, graph.constant(np.array(pads, np.int64))]) if any(pads) else value


def _reshaped(graph: OnnxGraph, value: str, shape: list[int]) -> str:
    return graph.add("Reshape", [value, graph.constant(np.array(shape, np.int64))])


# What ONNX Runtime has no float64 kernel for; each adds nodes and returns the name of their result.
LOWERED: dict[str, Callable[[OnnxGraph, NodeProto, list[str], ShapeOf], str]] = {
    "Conv": _conv,
    "AveragePool": _average_pool,
    "Elu": _elu,
    "Selu": _elu,
}
