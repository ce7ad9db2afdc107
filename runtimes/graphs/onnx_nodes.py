"""ONNX files as plain nodes, every shape inferred."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, one_line
from antispoof.graph_cost import Graph, Node, Value, fold
from antispoof.manifest import FACTS_KEY
from runtimes.graphs.onnx_shapes import typed, with_shapes

OWN_DOMAINS = ("", "ai.onnx")


def read(path: Path) -> Graph:
    """Returns the graph of an ONNX file.

    Raises:
        UserError: onnx is not installed, or the file is damaged.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'antispoof[onnx]'") from error
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        raise UserError(f"{path}: not an ONNX model, or damaged ({one_line(error)[:160]})") from error
    outside = _files_outside(model)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # whatever is wrong with the paths and offsets in it
        raise UserError(f"{path}: cannot read its weights in {outside} ({one_line(error)[:160]})") from error
    try:
        return _graph(model, outside)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: a damaged ONNX model: a name in it is no text") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _files_outside(model: Any) -> tuple[str, ...]:
    """Returns the files that weights of the main graph lie in."""
    rows = [entry for row in model.graph.initializer for entry in row.external_data]
    return tuple(sorted({entry.value for entry in rows if entry.key == "location"}))


def _graph(model: Any, outside: tuple[str, ...]) -> Graph:
    if not model.graph.node:
        raise UserError("not an ONNX model: it has no nodes")
    inferred, dynamic = with_shapes(model)
    reader = _Reader(model, inferred)
    nodes, fixed = fold(reader.nodes(inferred.graph, ""), reader.values)
    constants = {row.name for row in model.graph.initializer}
    facts = next((row.value for row in model.metadata_props if row.key == FACTS_KEY), None)
    return Graph(
        "onnx",
        nodes,
        reader.values,
        tuple(row.name for row in model.graph.input if row.name not in constants),
        tuple(row.name for row in model.graph.output),
        facts,
        dynamic,
        fixed,
        outside,
    )


class _Reader:
    """Collects nodes and values, those of inner graphs under names of their own."""

    def __init__(self, model: Any, inferred: Any) -> None:
        self.values: dict[str, Value] = {}
        for tensor in (*model.graph.initializer, *inferred.graph.initializer):
            self.values[tensor.name] = _constant(tensor)
        for row in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
            self.values.setdefault(row.name, typed(row.type))

    def nodes(self, graph: Any, scope: str, outer: Mapping[str, str] | None = None) -> list[Node]:
        """Returns the nodes of a graph; ``outer`` says what its surroundings call their values."""
        names = dict(outer or {})
        if scope:
            inside = [row.name for row in (*graph.input, *graph.initializer)]
            inside += [name for node in graph.node for name in node.output if name]
            names.update({name: f"{scope}/{name}" for name in inside})
            for tensor in graph.initializer:
                self.values[names[tensor.name]] = _constant(tensor)
            for row in (*graph.input, *graph.output, *graph.value_info):
                self.values.setdefault(names.get(row.name, row.name), typed(row.type))
        return [self._node(node, index, names, scope) for index, node in enumerate(graph.node)]

    def _node(self, proto: Any, index: int, names: Mapping[str, str], scope: str) -> Node:
        from onnx import helper

        kind = proto.op_type if proto.domain in OWN_DOMAINS else f"{proto.domain}:{proto.op_type}"
        inputs = [names.get(name, name) for name in proto.input]
        outputs = [names.get(name, name) for name in proto.output]
        attributes: dict[str, Any] = {}
        body: list[Node] = []
        captured: set[str] = set()
        for row in proto.attribute:
            if row.HasField("g"):
                body += self.nodes(row.g, f"{scope}/{proto.name or index}.{row.name}", names)
                captured |= _captured(row.g)
            else:
                attributes[row.name] = _plain(helper.get_attribute_value(row))
        for name in (*inputs, *outputs):
            self.values.setdefault(name, Value("unknown", None))
        if kind == "Constant" and isinstance(array := attributes.pop("value", None), np.ndarray):
            self.values[outputs[0]] = Value(array.dtype.name, array.shape, array)
        return Node(
            kind,
            proto.name or (outputs[0] if outputs else f"{kind} {index}"),
            (*inputs, *sorted(names.get(name, name) for name in captured)),
            tuple(outputs),
            attributes,
            tuple(body),
            self._repeats(kind, inputs, attributes),
        )

    def _repeats(self, kind: str, inputs: list[str], attributes: Mapping[str, Any]) -> int:
        """Returns how often a loop runs; 1 where only a run decides."""
        if kind == "Loop" and inputs:
            trips = self.values[inputs[0]].constant
            return max(int(trips.reshape(-1)[0]), 0) if trips is not None and trips.size else 1
        if kind == "Scan":
            scanned = inputs[-int(attributes.get("num_scan_inputs", 1)) :]
            shape = (self.values[scanned[0]].shape if scanned else None) or ()
            axis = (attributes.get("scan_input_axes") or [0])[0]
            return shape[axis] if -len(shape) <= axis < len(shape) else 1
        return 1


def _captured(graph: Any) -> set[str]:
    """Returns the values of its surroundings that a graph inside a node reads."""
    reads = {name for node in graph.node for name in node.input if name}
    for node in graph.node:
        for row in node.attribute:
            if row.HasField("g"):
                reads |= _captured(row.g)
    made = {row.name for row in (*graph.input, *graph.initializer)}
    return reads - made - {name for node in graph.node for name in node.output}


def _constant(tensor: Any) -> Value:
    from onnx import numpy_helper

    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"its constant {tensor.name!r} is damaged ({one_line(error)[:80]})") from error
    return Value(array.dtype.name, array.shape, array)


def _plain(value: Any) -> Any:
    """Returns an attribute as a number, a text, an array or a list."""
    from onnx import TensorProto, numpy_helper

    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if not isinstance(value, (int, float, str)) else value
