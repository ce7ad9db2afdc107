"""Stores an ONNX graph in float16, and computes in float16 where that is harmless.

The layers in scope are what integers would take too. Sinc filters and graph attention stay float32, for they
hold a tenth of the weights and most of the error: ONNX Runtime's converter, which takes everything, changes
scores of AASIST-L by up to 0.13. On processors without float16 arithmetic, ONNX Runtime computes in float32
all the same; there `f16-mixed` is as small, and more exact.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from quantize.onnx_graph import OnnxGraph
from quantize.recipes import Recipe
from quantize.scope import Layer, layers_in_scope, recurrent_layers
from quantize.static_int import find_region

LARGEST = float(np.finfo(np.float16).max)


def to_float16(model: ModelProto, recipe: Recipe) -> ModelProto:
    """Returns the model in float16.

    Args:
        model: In float32.
        recipe: ``f16``, or ``f16-mixed``, which computes in float32 throughout.
    """
    graph = OnnxGraph(model)
    layers = layers_in_scope(graph)
    _store(graph, [*(layers if recipe.mixed else ()), *recurrent_layers(graph)])
    if not recipe.mixed:
        _compute(graph, [*(layer.node for layer in layers), *find_region(graph, layers).inside])
    return graph.finish()


def _compute(graph: OnnxGraph, nodes: list[NodeProto]) -> None:
    """Makes nodes compute in float16, with Casts where values enter and leave."""
    chosen = {id(node) for node in nodes}
    made = {name for node in nodes for name in node.output}
    entering: dict[str, str] = {}
    for node in nodes:
        for name in dict.fromkeys(node.input):
            if name in made or not name:
                continue
            if name not in entering:
                entering[name] = _narrowed(graph, name)
            graph.rename(name, entering[name], [node])
    for name in sorted(made):
        readers = [node for node in graph.consumers(name) if id(node) not in chosen]
        if readers:
            graph.rename(name, graph.add("Cast", [name], to=TensorProto.FLOAT), readers)


def _narrowed(graph: OnnxGraph, name: str) -> str:
    """Returns the float16 form of a value, which is a constant where the value is one."""
    if name in graph.constants:
        return graph.constant(_half(graph.constants[name]), f"{name}.half")
    return graph.add("Cast", [name], to=TensorProto.FLOAT16)


def _store(graph: OnnxGraph, layers: list[Layer]) -> None:
    """Stores the weights of layers in float16. ONNX Runtime casts them back once, when it loads the file."""
    for layer in layers:
        result = f"{layer.weight}.restored"
        if graph.producer(result) is None:
            graph.add("Cast", [_narrowed(graph, layer.weight)], result, to=TensorProto.FLOAT)
        graph.rename(layer.weight, result, [layer.node])


def _half(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -LARGEST, LARGEST).astype(np.float16)
