"""Manifests for model files that a test wrote itself."""

from __future__ import annotations

from pathlib import Path

from antispoof.manifest import Input, Manifest, Output, describe_file, manifest_path


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
