"""Which layers are quantized, whatever the recipe: for any format, and those of an ONNX graph.

Not the layers that hear the waveform: a fixed step for loud and quiet speech is 8-bit audio, and on AASIST-L
the sinc filters alone cost more than all other convolutions together (score correlation 0.89 against 0.99).
And no small projections: those of AASIST's graph attention take 0.3 % of the time, and their errors reorder
nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from onnx import NodeProto

from antispoof.errors import UserError
from quantize.onnx_graph import OnnxGraph
from quantize.recipes import Recipe

REARRANGING = ("Reshape", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze", "Identity")
WEIGHTED = ("Conv", "MatMul", "Gemm")
RECURRENT = ("GRU", "LSTM", "RNN")  # of which ONNX Runtime has no kernel on integers, nor one in float16
Name = TypeVar("Name", bound=Hashable)  # of a tensor: a text or a number
LINEAR_WEIGHTS = 16_384  # a projection with fewer is not worth its error: AASIST-L's largest has 1,024


@dataclass(frozen=True)
class Layer:
    """A node with constant weights.

    Attributes:
        node: Conv, MatMul or Gemm, or a recurrent node.
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


@dataclass(frozen=True)
class Step(Generic[Name]):
    """A node of a graph of any format, as far as it matters to who hears the waveform.

    Attributes:
        inputs: What it reads.
        outputs: What it gives.
        is_layer: Whether it has constant weights.
        rearranges: Whether its output holds the values of its input, in another order or shape.
    """

    inputs: Sequence[Name]
    outputs: Sequence[Name]
    is_layer: bool
    rearranges: bool


def hearing(steps: Iterable[Step[Name]], waveform: Name) -> set[int]:
    """Returns the numbers of the layers that turn the waveform into something else linear in it.

    A transform in several steps is one front end: what lies between its steps is the waveform still.
    """
    raw, transformed = {waveform}, set[Name]()
    layers = set()
    for index, step in enumerate(steps):
        inputs, outputs = set(step.inputs), set(step.outputs)
        if not inputs & (raw | transformed):
            continue
        if step.is_layer:
            layers.add(index)
            transformed |= outputs
        elif inputs & transformed:
            transformed |= outputs if step.rearranges else set()
        else:
            raw |= outputs
    return layers


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


def recurrent_layers(graph: OnnxGraph) -> list[Layer]:
    """Returns what is worth storing in fewer bits of recurrent nodes, which compute in float32 all the same.

    A node has two constants: what it does with its input, and with its state. Both directions share scales.
    """
    return [
        Layer(node, name, axis=1, bias=None)
        for node in graph.nodes
        if node.op_type in RECURRENT
        for name in node.input[1:3]
        if name in graph.constants and np.size(graph.constants[name]) >= LINEAR_WEIGHTS
    ]


def require_layers(layers: Collection[Any], recipe: Recipe) -> None:
    """Refuses to compute in integers what no layer of a model in scope would compute.

    Raises:
        UserError: There is none.
    """
    if not layers:
        raise UserError(
            f"{recipe.name} is for convolutions and large projections behind the front end, of which this "
            "model has none"
        )


def _hearing_the_waveform(graph: OnnxGraph) -> set[int]:
    """Returns the layers that hear the waveform, by identity."""
    steps = [
        Step(node.input, node.output, layer_of(graph, node) is not None, node.op_type in REARRANGING)
        for node in graph.nodes
    ]
    return {id(graph.nodes[index]) for index in hearing(steps, graph.input)}
