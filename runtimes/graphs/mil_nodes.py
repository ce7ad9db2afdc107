"""Core ML packages as plain nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from antispoof.graph_cost import Graph, Node, Value, fold
from antispoof.manifest import FACTS_KEY
from runtimes.ml_program.package import read_package
from runtimes.ml_program.program import Argument, Operation, Program, Reference

# Arguments that are tensors, those that a kind multiplies first; all others say how it is done.
TENSORS = (
    "x",
    "weight",
    "weight_ih",
    "weight_hh",
    "y",
    "values",
    "bias",
    "cond",
    "a",
    "b",
    "data",
    "indices",
)


def read(path: Path) -> Graph:
    """Returns the graph of a Core ML package.

    Raises:
        UserError: The package is damaged, or no ML Program of fixed shapes.
    """
    program = read_package(path)
    values = _values(program)
    steps = [_node(op, values) for op in program.operations if op.kind != "const"]
    nodes, fixed = fold(steps, values)
    return Graph(
        "coreml",
        nodes,
        values,
        tuple(name for name, _ in program.inputs),
        program.outputs,
        program.metadata.get(FACTS_KEY),
        fixed=fixed,
    )


def _values(program: Program) -> dict[str, Value]:
    values = {name: Value(kind.dtype, kind.shape) for name, kind in program.inputs}
    for op in program.operations:
        for name, kind in op.outputs:
            content = op.arguments.get("val") if op.kind == "const" else None
            constant = None if content is None else np.asarray(content)
            values[name] = Value(kind.dtype, kind.shape, constant)
    return values


def _node(op: Operation, values: dict[str, Value]) -> Node:
    inputs: list[str] = []
    attributes: dict[str, Any] = {}
    for name, argument in sorted(op.arguments.items(), key=_tensors_first):
        several = argument if isinstance(argument, list) else [argument]
        named = [one.name for one in several if isinstance(one, Reference)]
        if name in TENSORS or any(values[one].constant is None for one in named if one in values):
            inputs += [_name(one, values, f"{op.name}.{name}.{i}") for i, one in enumerate(several)]
        else:
            attributes[name] = _content(argument, values)
    return Node(op.kind, op.name, tuple(inputs), tuple(name for name, _ in op.outputs), attributes)


def _tensors_first(row: tuple[str, Argument]) -> tuple[int, str]:
    name, _ = row
    return (TENSORS.index(name) if name in TENSORS else len(TENSORS), name)


def _name(argument: Argument, values: dict[str, Value], own: str) -> str:
    """Returns the name of a tensor; one that is written into the operation gets a name of its own."""
    if isinstance(argument, Reference):
        values.setdefault(argument.name, Value("unknown", None))
        return argument.name
    array = np.asarray(argument)
    values[own] = Value(array.dtype.name, array.shape, array)
    return own


def _content(argument: Argument, values: dict[str, Value]) -> Any:
    """Returns a constant as a number, a text or a list."""
    if isinstance(argument, list):
        return [_content(one, values) for one in argument]
    if isinstance(argument, Reference):
        argument = values[argument.name].constant if argument.name in values else None
    return argument.tolist() if isinstance(argument, np.ndarray) else argument
