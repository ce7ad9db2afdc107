"""Manifests for model files that a test wrote itself, and copies of files with theirs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from antispoof.manifest import Input, Manifest, Output, describe_file, manifest_path
from antispoof.manifest_reader import read_manifest


def write_manifest(path: Path, samples: int, model: str = "aasist-l") -> Path:
    """Writes the manifest of an ONNX file that takes one clip, as an exporter would; returns its path."""
    manifest = Manifest(
        model=model,
        config={},
        weights_sha256="0" * 64,
        weights="none",
        format="onnx",
        precision="float32",
        recipe="none",
        input=Input("waveform", 1, samples),
        output=Output("score"),
        licence="MIT",
        tools={},
        file=describe_file(path),
    )
    manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
    return path


def copy_model(source: Path, target: Path, **changes: Any) -> Path:
    """Copies a model file and its manifest, of which some fields may differ; returns the copy's path."""
    shutil.copy(source, target)
    manifest = replace(read_manifest(source), **changes)
    manifest_path(target).write_text(manifest.to_json(), encoding="utf-8")
    return target
