"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, one_line
from antispoof.manifest import Manifest, read_file
from antispoof.manifest_reader import read_manifest
from runtimes.base import Runtime

FATAL_ONLY = 4  # log severity: its warnings are for its developers, and its errors come as exceptions too


class OrtRuntime(Runtime):
    """Scores with an ONNX Runtime session."""

    def __init__(self, session: Any, path: Path, manifest: Manifest) -> None:
        self.session = session
        self.path = path
        self.manifest = manifest
        self.input = manifest.input

    def _run(self, waveforms: np.ndarray) -> np.ndarray:
        assert self.manifest is not None
        try:
            return self.session.run([self.manifest.output.name], {self.input.name: waveforms})[0]
        except Exception as error:  # its exception types share no base but Exception
            raise UserError(
                f"{self.path.name}: onnxruntime could not run it ({one_line(error)[:240]})"
            ) from error


def open_session(
    content: bytes, *, threads: int, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> Any:
    """Returns a session for the bytes of an ONNX file, with threads and providers as told.

    From bytes and not from a path, so that what runs is what was checked, and so that a file
    cannot pull in others as external data.

    Raises:
        UserError: onnxruntime or a provider is not installed, or the bytes are no model it can run.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnxruntime is not installed: pip install 'antispoof[onnx]'") from error
    missing = sorted(set(providers) - set(onnxruntime.get_available_providers()))
    if missing:
        have = ", ".join(onnxruntime.get_available_providers())
        raise UserError(f"this onnxruntime has no {', '.join(missing)}; it has {have}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL_ONLY
    # The pattern is one block for all activations, allocated beside those of the first run: AASIST-L
    # peaks at 343 MiB with it and 206 without, in the same time.
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(content, options, providers=list(providers))
    except Exception as error:  # its exception types share no base but Exception
        raise UserError(f"not an ONNX model that onnxruntime can run ({one_line(error)[:160]})") from error


def open_runtime(
    path: Path, *, threads: int, trusted_key: Path | None, providers: Sequence[str]
) -> OrtRuntime:
    """Opens an ONNX file after its manifest was read and found to be its own."""
    manifest = read_manifest(path, trusted_key)
    content = read_file(manifest, path)
    if manifest.format != "onnx":
        raise UserError(f"{path}: its manifest is that of a {manifest.format} file")
    try:
        session = open_session(content, threads=threads, providers=providers)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _check_ends(session, manifest, path)
    return OrtRuntime(session, path, manifest)


def _check_ends(session: Any, manifest: Manifest, path: Path) -> None:
    """Refuses a graph whose input or output is not what the manifest promises."""
    inputs = [
        (x.name, x.type, [d if isinstance(d, int) else None for d in x.shape]) for x in session.get_inputs()
    ]
    outputs = [
        (x.name, x.type, [d if isinstance(d, int) else None for d in x.shape]) for x in session.get_outputs()
    ]
    wanted_input = (manifest.input.name, "tensor(float)", [manifest.input.batch, manifest.input.samples])
    wanted_output = (manifest.output.name, "tensor(float)", [manifest.input.batch])
    for kind, found, wanted in (("input", inputs, wanted_input), ("output", outputs, wanted_output)):
        if found != [wanted]:
            raise UserError(f"{path}: its {kind} is {found}, its manifest says {wanted}")
