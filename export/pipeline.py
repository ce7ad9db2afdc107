"""What all exporters do around their conversion: take weights, verify the file, put it in place.

1. take the weights and freeze the network (`antispoof.pretrained`, `export.graph`)
2. convert, which each exporter does itself
3. write the file and its manifest where nobody looks for them yet
4. open the file with its runtime and compare its scores with PyTorch's, on speech
5. move both into place, or leave nothing behind
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from antispoof.checkpoint import weights_hash
from antispoof.errors import UserError
from antispoof.formats import Format
from antispoof.manifest import Input, Manifest, Output, Parity, describe_file, manifest_path, put_in_place
from antispoof.memory import keep_freed_memory
from antispoof.model_names import model_names
from antispoof.outputs import partial_folder
from antispoof.pretrained import DEFAULT_MODEL, Weights, load_pretrained
from export.bisection import ScoresDiffer, Trial, naming_culprit
from export.graph import INPUT_NAME, OUTPUT_NAME, ScoreGraph
from runtimes import load
from runtimes.base import Runtime
from runtimes.clips import PARITY_CLIPS, parity_clips
from runtimes.compare import Comparison, compare
from runtimes.eager import EagerRuntime

LONGEST_STEM = 200  # bytes of a name, of which file systems take 255; endings follow
# Writes the frozen graph, with the manifest's facts inside, to a path that does not exist yet.
Converter = Callable[[ScoreGraph, Manifest, Path], None]
Witness = Callable[[Path], Runtime]  # opens a finished file in another way


@dataclass(frozen=True)
class Exported:
    """A file that was written and verified."""

    path: Path
    manifest: Manifest
    comparison: Comparison
    witnessed: Comparison | None = None  # by a second runtime, where there is one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every exporter has."""
    parser.add_argument("--model", choices=model_names(), help=f"which network (default {DEFAULT_MODEL})")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="weights: a file, 'official' (the authors', downloaded once), 'qat' (bundled, to be quantized) "
        "or 'random' (default: bundled)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="folder to write to (default out)"
    )
    parser.add_argument("--name", help="name of the file, without its ending (default: the model's)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="a field of the model's configuration, its value as JSON or plain text; may be repeated",
    )
    parser.add_argument(
        "--wavlm", metavar="SIZE", help="large, base-plus, tiny or a folder: short for --set wavlm=SIZE"
    )
    parser.add_argument(
        "--verify-audio",
        type=Path,
        metavar="DIR",
        help=f"compare scores on up to {PARITY_CLIPS} clips below DIR (default: generated speech-like ones)",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that exists")
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="where the export fails, name the smallest part of the network that fails alone",
    )


def parse_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the model configuration that the flags ask for.

    Raises:
        UserError: An argument of ``--set`` has no ``=``.
    """
    overrides: dict[str, Any] = {}
    for text in args.overrides:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UserError(f"--set takes KEY=VALUE, got {text!r}")
        try:
            overrides[key] = json.loads(value)
        except ValueError:
            overrides[key] = value
    if args.wavlm is not None:
        overrides["wavlm"] = args.wavlm
    return {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}


def take_weights(args: argparse.Namespace) -> Weights:
    """Returns the weights that the flags ask for."""
    return load_pretrained(args.checkpoint, args.model, **parse_overrides(args))


def export(
    weights: Weights,
    row: Format,
    convert: Converter,
    *,
    out: Path,
    name: str | None = None,
    batch: int | None = 1,
    precision: str = "float32",
    recipe: str = "none",
    audio: Path | None = None,
    force: bool = False,
    trial: Trial | None = None,
    witness: Witness | None = None,
) -> Exported:
    """Converts a detector, verifies the file and puts it and its manifest into ``out``.

    Where it fails and ``trial`` exports parts of the network, the part that is to blame is named.

    Raises:
        UserError: The target exists and ``force`` is false, ``out`` is called like a file, or there is no
            audio to verify on.
        CheckFailed: The file's scores are not PyTorch's. Nothing is left behind.
    """
    target = row.path_in(out, stem_of(weights, name))
    if not force and (existing := [path for path in (target, manifest_path(target)) if path.exists()]):
        raise UserError(f"{existing[0]} exists; --force replaces it")
    keep_freed_memory()
    clips, clips_name = parity_clips(audio, weights.detector.clip_samples)
    graph = ScoreGraph(weights.detector)
    manifest = describe(weights, row, batch=batch, precision=precision, recipe=recipe)
    with partial_folder(out) as folder:
        path = folder / target.name
        tolerance = row.tolerance_of(precision)
        with naming_culprit(weights.detector, trial, clips, tolerance):
            convert(graph, manifest, path)
            manifest = replace(manifest, file=describe_file(path))
            manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
            reference = EagerRuntime(weights.detector, Path(weights.detector.name))
            comparison = compare(reference, load(path), clips)
            if not comparison.within(tolerance):
                raise ScoresDiffer(_difference(target, comparison, clips_name, tolerance), comparison.worst)
            witnessed = compare(reference, witness(path), clips) if witness else None
            if witnessed and not witnessed.within(tolerance):
                said = _difference(target, witnessed, clips_name, tolerance)
                raise ScoresDiffer(f"turned back into ONNX, {said}", witnessed.worst)
        parity = Parity(
            "PyTorch, eager, float32", len(clips), clips_name, comparison.max_difference, tolerance
        )
        manifest = replace(manifest, parity=parity)
        manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
        put_in_place(path, target)
    return Exported(target, manifest, comparison, witnessed)


def stem_of(weights: Weights, name: str | None) -> str:
    """Returns the name of an export's files, without their endings: the model's where none was asked for.

    Raises:
        UserError: No file can be called so.
    """
    stem = weights.detector.name if name is None else name
    if not stem or stem != Path(stem).name or not stem.isprintable() or len(stem.encode()) > LONGEST_STEM:
        raise UserError(f"{stem[:LONGEST_STEM]!r} is not a file name")
    return stem


def _difference(target: Path, comparison: Comparison, clips_name: str, tolerance: float) -> str:
    return (
        f"{target.name} does not score as PyTorch does: clip {comparison.worst} of {clips_name} gets "
        f"{comparison.candidate_score:.6f} instead of {comparison.reference_score:.6f} "
        f"(allowed: {tolerance:g}); nothing was written"
    )


def describe(weights: Weights, row: Format, *, batch: int | None, precision: str, recipe: str) -> Manifest:
    """Returns the manifest of a file that does not exist yet."""
    detector = weights.detector
    return Manifest(
        model=detector.name,
        config=asdict(detector.config),
        weights_sha256=weights_hash(detector),
        weights=weights.source,
        format=row.name,
        precision=precision,
        recipe=recipe,
        input=Input(INPUT_NAME, batch, detector.clip_samples),
        output=Output(OUTPUT_NAME),
        licence=weights.licence,
        tools=tool_versions("antispoof", "torch", *_converter_packages(row)),
        calibration=weights.calibration,
        thresholds=weights.thresholds,
    )


def _converter_packages(row: Format) -> tuple[str, ...]:
    packages = {
        "onnx": ("onnx", "onnxscript"),
        "tflite": ("litert-torch", "litert-converter"),
        "coreml": ("coremltools",),
    }
    return packages.get(row.name, ())


def tool_versions(*packages: str) -> dict[str, str]:
    """Returns the installed version of each package, and Python's."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), **versions}


def print_table(exported: Exported, rows: dict[str, str]) -> None:
    """Prints what was written and how it compares, one fact a line."""
    parity = exported.manifest.parity
    file = exported.manifest.file
    assert parity is not None
    assert file is not None
    facts = {
        "file": str(exported.path),
        "model": f"{exported.manifest.model}, weights: {exported.manifest.weights}",
        "size": f"{file.bytes / 1024:.1f} KiB",
        **rows,
        "parity": f"{parity.max_difference:.1e} at most on {parity.audio} (allowed {parity.tolerance:.0e})",
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    sys.stdout.flush()
