"""Runs a model file: ``load(path).score(waveforms)`` is the same call for every format."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antispoof.errors import UserError
from antispoof.formats import format_of
from runtimes.base import Runtime

__all__ = ["Runtime", "load"]


def load(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    model: str | None = None,
    overrides: dict[str, Any] | None = None,
    providers: Sequence[str] | None = None,
    trusted_key: str | os.PathLike[str] | None = None,
) -> Runtime:
    """Opens a model file for scoring.

    Args:
        path: An exported file with its manifest beside it, or a PyTorch checkpoint.
        threads: How many threads one run may use.
        model: The model's name, for a checkpoint that does not tell.
        overrides: The model's configuration, likewise.
        providers: Execution providers of ONNX Runtime; the CPU's by default.
        trusted_key: A public key (``KEY.pem.pub`` of export/sign.py); nothing is opened that it did not sign.

    Raises:
        UserError: The file is missing or damaged, does not match its manifest, is not signed by the trusted
            key, or its runtime is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such model file")
    if threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}")
    row = format_of(path)
    if row.name != "torch" and (model or overrides):
        raise UserError(f"{path}: its manifest says which model it is; --model is for checkpoints")
    if row.name != "onnx" and providers:
        raise UserError(f"{path}: execution providers belong to ONNX Runtime, not to {row.name} files")
    if row.name == "torch" and trusted_key:
        raise UserError(f"{path}: a checkpoint has no manifest to sign; --trusted-key is for exported files")
    module = importlib.import_module(row.runtime)
    if row.name == "torch":
        return module.open_runtime(path, threads=threads, model=model, overrides=overrides or {})
    key = Path(trusted_key) if trusted_key else None
    if row.name == "onnx":
        chosen = providers or ("CPUExecutionProvider",)
        return module.open_runtime(path, threads=threads, trusted_key=key, providers=chosen)
    return module.open_runtime(path, threads=threads, trusted_key=key)
