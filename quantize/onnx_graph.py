"""An ONNX graph that can be edited: look values up by name, add nodes anywhere, sort them at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

QDQ_16_BIT_OPSET = 21  # the first in which QuantizeLinear knows 16-bit and DequantizeLinear 4-bit integers


class OnnxGraph:
    """The main graph of a model, without those inside control-flow nodes, which nothing here touches."""

    def __init__(self, model: ModelProto) -> None:
        self.model = ModelProto.FromString(model.SerializeToString())
        self.nodes = list(self.model.graph.node)
        self.constants = {
            initializer.name: numpy_helper.to_array(initializer)
            for initializer in self.model.graph.initializer
        }
        self._opaque = {
            initializer.name: initializer for initializer in self.model.graph.initializer
        }  # as they came, so that untouched ones leave byte for byte the same
        self._count = 0

    @property
    def input(self) -> str:
        """The name of the one input."""
        return self.model.graph.input[0].name

    @property
    def output(self) -> str:
        """The name of the one output."""
        return self.model.graph.output[0].name

    def producer(self, value: str) -> NodeProto | None:
        """Returns the node that makes a value, None for inputs and constants."""
        return next((node for node in self.nodes if value in node.output), None)

    def consumers(self, value: str) -> list[NodeProto]:
        """Returns the nodes that read a value."""
        return [node for node in self.nodes if value in node.input]

    def constant(self, array: Any, name: str | None = None) -> str:
        """Adds a constant and returns its name."""
        name = self._fresh("c") if name is None else name
        self.constants[name] = np.asarray(array)
        self._opaque.pop(name, None)
        return name

    def _fresh(self, prefix: str) -> str:
        taken = {name for node in self.nodes for name in node.output} | set(self.constants)
        while True:
            self._count += 1
            name = f"{prefix}{self._count}"
            if name not in taken:
                return name

    def add(self, operation: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Adds a node and returns the name of its output."""
        output = self._fresh("q") if output is None else output
        self.nodes.append(helper.make_node(operation, list(inputs), [output], **attributes))
        return output

    def rename(self, old: str, new: str, readers: Iterable[NodeProto]) -> None:
        """Makes ``readers`` read ``new`` where they read ``old``."""
        for node in readers:
            node.input[:] = [new if name == old else name for name in node.input]

    def remove(self, node: NodeProto) -> None:
        """Removes a node; its output must be made by another, or read by none."""
        self.nodes = [kept for kept in self.nodes if kept is not node]

    def finish(self, opset: int | None = None) -> ModelProto:
        """Returns the model: nodes in order and named; nodes and constants that nothing reads are dropped.

        ONNX Runtime would run such nodes: a Dequantize that an integer operation has made superfluous cost
        a twentieth of AASIST-L's time.
        """
        graph = self.model.graph
        used = {value.name for value in graph.output}
        ordered: list[NodeProto] = []
        for node in reversed(self._ordered()):
            if used & set(node.output):
                used |= _reads(node)
                ordered.append(node)
        ordered.reverse()
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        for index, node in enumerate(ordered):
            node.name = f"{node.op_type}_{index}"
        graph.node.extend(ordered)
        for name, array in self.constants.items():
            if name in used:
                kept = self._opaque.get(name)
                graph.initializer.append(numpy_helper.from_array(array, name) if kept is None else kept)
        if opset is not None:
            self._raise_opset(opset)
        return self.model

    def _raise_opset(self, opset: int) -> None:
        for row in self.model.opset_import:
            if row.domain in ("", "ai.onnx"):
                row.version = max(row.version, opset)
        self.model.ir_version = max(self.model.ir_version, 10)  # of opset 21

    def _ordered(self) -> list[NodeProto]:
        """Returns the nodes such that every value is made before it is read; otherwise as they stand."""
        made_by = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        placed: set[int] = set()
        ordered: list[NodeProto] = []
        for root in range(len(self.nodes)):
            stack = [root]
            while stack:
                index = stack[-1]
                needed = {made_by[name] for name in _reads(self.nodes[index]) if name in made_by}
                missing = sorted(needed - placed - {index}, reverse=True)
                if index in placed or not missing:
                    stack.pop()
                    if index not in placed:
                        placed.add(index)
                        ordered.append(self.nodes[index])
                else:
                    stack += missing
        return ordered


def _reads(node: NodeProto) -> set[str]:
    """Returns the values that a node or the graphs inside it read."""
    reads = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            reads |= _reads(inner)
    return reads


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Returns the value of a node's attribute."""
    return next((helper.get_attribute_value(row) for row in node.attribute if row.name == name), default)
