"""From a traced graph to the bytes of an ONNX file: the same graph always gives the same bytes."""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from antispoof.errors import UserError
from antispoof.formats import format_named
from antispoof.lowering import lowering
from antispoof.models import freeze
from export.bisection import NoRule
from export.graph import INPUT_NAME, OUTPUT_NAME, ScoreGraph, trace
from runtimes.ort import open_session

DEFAULT_OPSET = 18
OPSETS = range(18, 25)  # 18 is what torch's exporter writes natively; beyond 24 nothing was tried
RECURRENT = ("GRU", "LSTM", "RNN")
MOVING = ("Expand", "Reshape", "Slice", "Transpose", "Unsqueeze")  # give the values of their first input
STATES = 5  # from this input on, they are the states that a recurrent node begins with
NO_RULE = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)', overload='([^']+)'")


def convert(graph: ScoreGraph, *, opset: int, dynamic_batch: bool, time_tiles: int = 1) -> Any:
    """Returns the graph as an ``onnx.ModelProto`` without stack traces, paths and dead weights.

    Raises:
        UserError: onnx or onnxscript is not installed.
    """
    with _exporting(time_tiles):
        traced = trace(graph, dynamic_batch=dynamic_batch)
        model = _model(traced, opset, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME])
    strip_export(model)
    return model


def run_part(
    part: nn.Module, inputs: tuple[Tensor, ...], *, opset: int = DEFAULT_OPSET, time_tiles: int = 1
) -> list[np.ndarray]:
    """Exports a part of a network, for inputs like these, and returns what the file makes of them."""
    with _exporting(time_tiles):
        freeze(part)
        model = _model(torch.export.export(part, inputs, strict=False), opset)
    session = open_session(model.SerializeToString(), threads=1)
    names = [value.name for value in session.get_inputs()]
    given: list[np.ndarray] = session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
    return given


@contextmanager
def _exporting(time_tiles: int) -> Iterator[None]:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'antispoof[onnx]'") from error
    how = replace(format_named("onnx").lowering, time_tiles=time_tiles)
    with warnings.catch_warnings(), quiet_exporter(), lowering(how):
        # Warnings about the exporter's own internals; what matters is checked by running the file.
        warnings.simplefilter("ignore")
        yield


def _model(traced: torch.export.ExportedProgram, opset: int, **names: Any) -> Any:
    try:
        program = torch.onnx.export(traced, dynamo=True, opset_version=opset, verbose=False, **names)
    except torch.onnx.OnnxExporterError as error:
        unknown = NO_RULE.search(str(error))
        if unknown is None:
            raise
        raise NoRule("torch's ONNX exporter", f"{unknown[1]}.{unknown[2]}") from error
    assert program is not None
    model = program.model_proto
    _fold_recurrent_weights(model.graph)
    return model


def _fold_recurrent_weights(graph: Any) -> None:
    """Puts the weights of recurrent layers into the file as ONNX orders them, without states of zeros.

    torch's exporter leaves its own order there, and slices and joins that change it: each loading would do
    so anew, and no quantizer would know the result for weights. To begin at zero is ONNX's default.
    """
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    constants = {row.name: row for row in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}

    def value(name: str) -> tuple[np.ndarray, str] | None:
        """Returns a value that no input reaches, and the name of the weights that it is made of."""
        if name in constants:
            return numpy_helper.to_array(constants[name]), name
        given = [value(source) for source in made_by[name].input] if name in made_by else []
        known = [row for row in given if row is not None]
        if not known or len(known) < len(given):
            return None
        node = made_by[name]
        results: Any = ReferenceEvaluator(node).run(
            None, dict(zip(node.input, (array for array, _ in known), strict=True))
        )
        return results[list(node.output).index(name)], known[0][1]

    def is_zero(name: str) -> bool:
        if name in constants:
            return not numpy_helper.to_array(constants[name]).any()
        return name in made_by and made_by[name].op_type in MOVING and is_zero(made_by[name].input[0])

    for node in [node for node in graph.node if node.op_type in RECURRENT]:
        node.input[:] = [
            "" if place >= STATES and is_zero(name) else name for place, name in enumerate(node.input)
        ]
        for place, name in enumerate(node.input):
            found = value(name) if name and name not in constants else None
            if found is not None:
                ordered = f"{found[1]}.ordered"
                if ordered not in constants:
                    constants[ordered] = numpy_helper.from_array(found[0], ordered)
                    graph.initializer.append(constants[ordered])
                node.input[place] = ordered
    _drop_unread(graph)


def _drop_unread(graph: Any) -> None:
    """Removes nodes and constants that lead to no output."""
    read = {row.name for row in graph.output}
    for node in reversed(list(graph.node)):
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(name for inner in _inside(node) for name in inner.input)
    for row in [row for row in graph.initializer if row.name not in read]:
        graph.initializer.remove(row)


def _inside(node: Any) -> Iterator[Any]:
    """Yields a node and those of the graphs inside it."""
    yield node
    for attribute in node.attribute:
        for inner in _graphs(attribute.g) if attribute.HasField("g") else ():
            yield from inner.node


class quiet_exporter:
    """Keeps the exporter from logging that torchvision, which nothing here needs, is missing."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("torch.onnx")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)


def strip_export(model: Any) -> None:
    """Removes what describes the exporter's run: source lines, paths, inferred shapes, names of scopes.

    A plain export of AASIST-L carries 440 KiB of that beside 370 KiB of weights.
    """
    del model.metadata_props[:]
    model.producer_name = "antispoof"
    model.producer_version = ""
    model.doc_string = ""
    for graph in _graphs(model.graph):
        graph.doc_string = ""
        del graph.value_info[:]
        del graph.metadata_props[:]
        for described in (*graph.node, *graph.initializer, *graph.input, *graph.output):
            described.doc_string = ""
            del described.metadata_props[:]
    _rename_values(model.graph)


def _graphs(graph: Any) -> Iterator[Any]:
    """Yields a graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _rename_values(graph: Any) -> None:
    """Gives nodes and the values between them short names in order of appearance.

    torch numbers them by a counter of the process, so a second export would differ in its names.
    Weights keep theirs: they say which layer they are of.
    """
    kept = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    names: dict[str, str] = {}
    for inner in _graphs(graph):
        for value in (*inner.input, *inner.output, *inner.initializer):
            if inner is not graph:
                names.setdefault(value.name, f"v{len(names)}")
        for node in inner.node:
            for name in (*node.input, *node.output):
                if name and name not in kept:
                    names.setdefault(name, f"v{len(names)}")
    for inner in _graphs(graph):
        for index, node in enumerate(inner.node):
            node.name = f"{node.op_type}_{index}"
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        if inner is not graph:
            for value in (*inner.input, *inner.output, *inner.initializer):
                value.name = names[value.name]


def operations(model: Any) -> Counter[str]:
    """Returns how many nodes of each type the graph has, those of inner graphs included."""
    return Counter(node.op_type for graph in _graphs(model.graph) for node in graph.node)
