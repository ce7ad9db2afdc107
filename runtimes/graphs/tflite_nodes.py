"""TFLite files as plain nodes."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, one_line
from antispoof.graph_cost import Graph, Node, Value
from antispoof.manifest import FACTS_KEY
from runtimes.litert import open_interpreter

OPEN = """
import sys
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1])
interpreter.allocate_tensors()
interpreter._get_ops_details()
"""
PLAIN = (int, float, bool, str, bytes, np.ndarray)


def read(path: Path) -> Graph:
    """Returns the main graph of a TFLite file.

    Raises:
        UserError: ai-edge-litert is not installed, or the file is damaged.
    """
    content = path.read_bytes()
    if _crashes(path):
        raise UserError(f"{path}: a damaged TFLite model: LiteRT crashes on it")
    try:
        open_interpreter(content, threads=1)  # which verifies the file; the schema's Python does not
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(content), 0))
        return _graph(model, schema)
    except (IndexError, UnicodeDecodeError, struct.error) as error:
        # A number that points nowhere, or a name that is no text: LiteRT's check lets some pass.
        raise UserError(f"{path}: a damaged TFLite model ({one_line(error)[:80]})") from error


def _crashes(path: Path) -> bool:
    """Whether LiteRT, asked in a process of its own, dies of a file.

    It follows some numbers that point nowhere, where no exception can be caught.
    """
    done = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, check=False)
    return done.returncode < 0


def _graph(model: Any, schema: Any) -> Graph:
    graph = model.subgraphs[0]
    kinds = _kinds(model, schema)
    names = [f"{_text(tensor.name)}#{index}" for index, tensor in enumerate(graph.tensors)]
    types = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    values = {name: _value(tensor, model, types) for name, tensor in zip(names, graph.tensors, strict=True)}
    nodes = tuple(
        Node(
            kinds[operator.opcodeIndex],
            _text(graph.tensors[operator.outputs[0]].name) if len(operator.outputs) else kinds[0],
            tuple(names[index] if index >= 0 else "" for index in _listed(operator.inputs)),
            tuple(names[index] for index in _listed(operator.outputs)),
            _attributes(operator.builtinOptions),
        )
        for operator in graph.operators or ()
    )
    inputs = _listed(graph.inputs)
    return Graph(
        "tflite",
        nodes,
        values,
        tuple(names[index] for index in inputs),
        tuple(names[index] for index in _listed(graph.outputs)),
        _facts(model),
        tuple(names[index] for index in inputs if -1 in _listed(graph.tensors[index].shapeSignature)),
        # LiteRT computes at every run even what follows from constants alone.
        frozenset(name for name, value in values.items() if value.constant is not None),
    )


def _kinds(model: Any, schema: Any) -> list[str]:
    named = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    kinds = []
    for row in model.operatorCodes:
        # Converters of before 2020 wrote the second field alone, which has a byte.
        kind = named.get(max(row.builtinCode, row.deprecatedBuiltinCode), "UNKNOWN")
        kinds.append(f"CUSTOM:{_text(row.customCode)}" if kind == "CUSTOM" else kind)
    return kinds


def _value(tensor: Any, model: Any, types: dict[int, str]) -> Value:
    dtype = types.get(tensor.type, "unknown")
    shape = tuple(int(size) for size in _listed(tensor.shape))
    data = model.buffers[tensor.buffer].data
    if 0 in shape:
        return Value(dtype, shape, np.zeros(shape))
    if data is None or not len(data):
        return Value(dtype, shape)
    try:
        content = np.asarray(data, np.uint8).view(np.dtype(dtype)).reshape(shape)
    except (TypeError, ValueError):  # of four bits, text, or compressed
        content = np.asarray(data, np.uint8)
    return Value(dtype, shape, content)


def _attributes(options: Any) -> dict[str, Any]:
    fields = {} if options is None else vars(options)
    return {name: value for name, value in fields.items() if isinstance(value, PLAIN)}


def _facts(model: Any) -> str | None:
    for row in model.metadata or ():
        data = model.buffers[row.buffer].data
        if _text(row.name) == FACTS_KEY and data is not None:
            return bytes(bytearray(data)).decode(errors="replace")
    return None


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name or "")


def _listed(numbers: Any) -> list[int]:
    """Returns a vector of the schema as a list; one that is left out is empty."""
    return [] if numbers is None else [int(number) for number in numbers]
