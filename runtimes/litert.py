"""LiteRT, formerly TensorFlow Lite, with its XNNPACK kernels for CPUs."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, one_line
from antispoof.manifest import Manifest, read_file
from antispoof.manifest_reader import read_manifest
from antispoof.native_log import silent_stderr
from runtimes.base import Runtime

DELEGATE = "DELEGATE"  # what the interpreter calls a piece of the graph that XNNPACK has taken over


class LitertRuntime(Runtime):
    """Scores with a LiteRT interpreter, each thread with its own, since none serves two at a time."""

    def __init__(self, content: bytes, threads: int, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.input = manifest.input
        self._content, self._threads = content, threads
        self._opening, self._local = threading.Lock(), threading.local()
        self.own_interpreter()  # complains here rather than at the first score

    def own_interpreter(self) -> Any:
        """Returns this thread's interpreter."""
        if not hasattr(self._local, "interpreter"):
            with self._opening:  # it turns the whole process's stderr off for a moment
                self._local.interpreter = open_interpreter(self._content, threads=self._threads)
        return self._local.interpreter

    def _run(self, waveforms: np.ndarray) -> np.ndarray:
        interpreter = self.own_interpreter()
        (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
        try:
            interpreter.set_tensor(given["index"], waveforms)
            interpreter.invoke()
            return interpreter.get_tensor(made["index"])
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self.path.name}: LiteRT could not run it ({one_line(error)[:240]})") from error


def open_interpreter(content: bytes, *, threads: int) -> Any:
    """Returns an interpreter, ready to run, for the bytes of a TFLite file.

    From bytes and not from a path, so that what runs is what was checked.

    Raises:
        UserError: ai-edge-litert is not installed, or the bytes are no model that it can run.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError("ai-edge-litert is not installed: pip install 'antispoof[tflite]'") from error
    with silent_stderr():
        try:
            # It verifies the structure of the file before it reads on.
            interpreter = Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"not a TFLite model that LiteRT can run ({one_line(error)[:160]})") from error
    return interpreter


def open_runtime(path: Path, *, threads: int, trusted_key: Path | None) -> LitertRuntime:
    """Opens a TFLite file after its manifest was read and found to be its own."""
    manifest = read_manifest(path, trusted_key)
    content = read_file(manifest, path)
    if manifest.format != "tflite":
        raise UserError(f"{path}: its manifest is that of a {manifest.format} file")
    try:
        runtime = LitertRuntime(content, threads, path, manifest)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _check_ends(runtime.own_interpreter(), manifest, path)
    return runtime


def _check_ends(interpreter: Any, manifest: Manifest, path: Path) -> None:
    """Refuses a graph whose input or output is not what the manifest promises."""
    samples, batch = manifest.input.samples, manifest.input.batch
    wanted_input = (manifest.input.name, "float32", [batch, samples])
    wanted_output = (manifest.output.name, "float32", [batch])
    for kind, details, wanted in (
        ("input", interpreter.get_input_details(), wanted_input),
        ("output", interpreter.get_output_details(), wanted_output),
    ):
        found = [(x["name"], np.dtype(x["dtype"]).name, x["shape"].tolist()) for x in details]
        if found != [wanted]:
            raise UserError(f"{path}: its {kind} is {found}, its manifest says {wanted}")


@dataclass(frozen=True)
class Partitions:
    """Into how many pieces XNNPACK cut a graph; one that takes everything is best.

    Attributes:
        pieces: Runs of operations that XNNPACK has taken.
        outside: How many operations it has left to LiteRT's own kernels.
    """

    pieces: int
    outside: int

    def sentence(self) -> str:
        """Returns the counts in words."""
        return f"{self.pieces} partition{'s' * (self.pieces != 1)}, {self.outside} operations outside"


def partitions(path: str | os.PathLike[str]) -> Partitions:
    """Returns how XNNPACK cuts the graph of a TFLite file."""
    operations = open_interpreter(Path(path).read_bytes(), threads=1)._get_ops_details()
    nodes = [operation for operation in operations if operation["op_name"] != DELEGATE]
    pieces = [operation for operation in operations if operation["op_name"] == DELEGATE]
    maker = {tensor: node["index"] for node in nodes for tensor in node["outputs"]}
    inputs = {node["index"]: node["inputs"] for node in nodes}
    taken: set[int] = set()
    for piece in pieces:
        # All that lies between the piece's outputs and its inputs is inside.
        edge = set(piece["inputs"])
        found = list(piece["outputs"])
        while found:
            tensor = found.pop()
            node = maker.get(tensor)
            if tensor not in edge and node is not None and node not in taken:
                taken.add(node)
                found.extend(inputs[node])
    return Partitions(len(pieces), len(nodes) - len(taken))
