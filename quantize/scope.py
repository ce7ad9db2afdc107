"""Which layers of an ONNX graph are quantized, whatever the recipe.

Not the layers that hear the waveform: a fixed step for loud and quiet speech is 8-bit audio, and on AASIST-L
the sinc filters alone cost more than all other convolutions together (score correlation 0.89 against 0.99).
And no small projections: those of AASIST's graph attention take 0.3 % of the time, and their errors reorder
nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from quantize.onnx_graph import OnnxGraph

REARRANGING = ("Reshape", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze", "Identity")
WEIGHTED = ("Conv", "MatMul", "Gemm")
LINEAR_WEIGHTS = 16_384  # a projection with fewer is not worth its error: AASIST-L's largest has 1,024


@dataclass(frozen=True)
class Layer:
    """A node with constant weights.

    Attributes:
        node: Conv, MatMul or Gemm.
        weight: Name of the constant.
        axis: Along which its output channels lie.
        bias: Name of the constant bias, if there is one.
    """

    node: NodeProto
    weight: str
    axis: int
    bias: str | None

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution."""
        return self.node.op_type == "Conv"


def layer_of(graph: OnnxGraph, node: NodeProto) -> Layer | None:
    """Returns a node as a layer, None where it has no constant weights."""
    if node.op_type not in WEIGHTED or node.input[1] not in graph.constants:
        return None
    bias = node.input[2] if len(node.input) > 2 and node.input[2] in graph.constants else None
    transposed = any(row.name == "transB" and row.i for row in node.attribute)
    axis = 0 if node.op_type == "Conv" or transposed else graph.constants[node.input[1]].ndim - 1
    return Layer(node, node.input[1], axis, bias)


def layers_in_scope(graph: OnnxGraph, everything: bool = False) -> list[Layer]:
    """Returns the layers to quantize, in graph order; ``everything`` takes in the waveform's too."""
    heard = set() if everything else _hearing_the_waveform(graph)
    layers = [layer for node in graph.nodes if (layer := layer_of(graph, node)) is not None]
    return [
        layer
        for layer in layers
        if id(layer.node) not in heard
        and (layer.is_convolution or np.size(graph.constants[layer.weight]) >= LINEAR_WEIGHTS)
    ]


def _hearing_the_waveform(graph: OnnxGraph) -> set[int]:
    """Returns the nodes with weights that turn the waveform into something else linear in it, by identity.

    A transform in several steps is one front end: what lies between its steps is the waveform still.
    """
    raw = {graph.input}
    transformed: set[str] = set()
    layers = set()
    for node in graph.nodes:
        inputs = set(node.input)
        if not inputs & (raw | transformed):
            continue
        if layer_of(graph, node) is not None:
            layers.add(id(node))
            transformed |= set(node.output)
        elif inputs & transformed:
            transformed |= set(node.output) if node.op_type in REARRANGING else set()
        else:
            raw |= set(node.output)
    return layers
