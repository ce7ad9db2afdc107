"""Reads the graph of a model file, without running it: the same plain list of nodes for every format."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from antispoof.errors import UserError
from antispoof.formats import format_of
from antispoof.graph_cost import Graph

READERS = {
    "onnx": "runtimes.graphs.onnx_nodes",
    "tflite": "runtimes.graphs.tflite_nodes",
    "coreml": "runtimes.graphs.mil_nodes",
}


def read_graph(path: str | os.PathLike[str]) -> Graph:
    """Returns the graph of an ONNX or TFLite file or of a Core ML package; it needs no manifest.

    Raises:
        UserError: The file is missing, damaged or of another format, or its library is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such model file")
    row = format_of(path)
    if row.name not in READERS:
        raise UserError(f"{path}: a checkpoint holds no graph; export it first")
    try:
        graph: Graph = importlib.import_module(READERS[row.name]).read(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    if not graph.nodes:
        raise UserError(f"{path}: nothing in it depends on its input; export it again")
    return graph
