"""Core ML packages: run by Core ML itself on macOS, by the evaluator everywhere else."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, one_line
from antispoof.manifest import Manifest, check_file
from antispoof.manifest_reader import read_manifest
from runtimes.base import Runtime

FORMAT = "coreml"


def has_core_ml() -> bool:
    """Tells whether packages are run here; elsewhere they are evaluated, whose time means nothing."""
    return sys.platform == "darwin"


def open_runtime(path: Path, *, threads: int, trusted_key: Path | None) -> Runtime:
    """Opens a package after its manifest was read and found to be its own."""
    manifest = read_manifest(path, trusted_key)
    check_file(manifest, path)
    if manifest.format != FORMAT:
        raise UserError(f"{path}: its manifest is that of a {manifest.format} file")
    if has_core_ml():
        return CoreMLRuntime(path, manifest)
    from runtimes.ml_program.runtime import MilRuntime  # imports PyTorch, which evaluates

    return MilRuntime(path, manifest, threads=threads)


class CoreMLRuntime(Runtime):
    """Scores with Apple's framework."""

    def __init__(self, path: Path, manifest: Manifest, compute_units: str = "ALL") -> None:
        """Compiles the package for this Mac.

        Args:
            path: The package.
            manifest: Its manifest.
            compute_units: ``ALL``, ``CPU_ONLY``, ``CPU_AND_GPU`` or ``CPU_AND_NE``.

        Raises:
            UserError: This is no Mac, or Core ML refuses the package.
        """
        if not has_core_ml():
            raise UserError(
                f"{path}: Core ML runs on Apple's systems only; runtimes.load evaluates the package here"
            )
        coremltools = import_coremltools()
        self.path = path
        self.manifest = manifest
        self.input = manifest.input
        try:
            with quiet():
                self.model: Any = coremltools.models.MLModel(
                    str(path), compute_units=coremltools.ComputeUnit[compute_units]
                )
        except Exception as error:  # the framework's errors come through as plain exceptions
            raise UserError(f"{path}: Core ML refuses it ({one_line(error)[:160]})") from error

    def _run(self, waveforms: np.ndarray) -> np.ndarray:
        assert self.manifest is not None
        try:
            given = self.model.predict({self.input.name: waveforms})[self.manifest.output.name]
        except Exception as error:  # likewise
            raise UserError(
                f"{self.path.name}: Core ML could not run it ({one_line(error)[:240]})"
            ) from error
        return np.asarray(given, np.float32).reshape(len(waveforms))


def import_coremltools() -> Any:
    """Returns coremltools, without its greetings.

    Raises:
        UserError: It is not installed.
    """
    try:
        with quiet():
            import coremltools
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'antispoof[coreml]'") from error
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    return coremltools


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what a library says of its own internals from stderr: logs, warnings, progress bars."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
