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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from antispoof.checkpoint import weights_hash
from antispoof.errors import UserError
from antispoof.formats import Format
from antispoof.manifest import Input, Manifest, Output, Parity, describe_file, manifest_path, put_in_place
from antispoof.memory import keep_freed_memory
from antispoof.model_names import model_names
from antispoof.outputs import partial_folder, refuse_to_replace
from antispoof.pretrained import DEFAULT_MODEL, Weights, load_pretrained
from export.bisection import ScoresDiffer, Trial, naming_culprit
from export.graph import INPUT_NAME, OUTPUT_NAME, ScoreGraph
from runtimes import load
from runtimes.base import Runtime
from runtimes.clips import PARITY_CLIPS, parity_clips
from runtimes.compare import Comparison, compare
from runtimes.eager import EagerRuntime

LONGEST_STEM = 200  # bytes of a name, of which file systems take 255; endings follow


@dataclass(frozen=True)
class Options:
    """What every export is asked for, whatever the format.

    Attributes:
        out: Folder to write to.
        model: Which network; what the checkpoint says, or the default, if None.
        checkpoint: Its weights, as `load_pretrained` takes them.
        overrides: Fields of the model's configuration.
        name: Of the file, without its ending; the model's if None.
        audio: Folder of clips to compare scores on; generated ones if None.
        force: Whether a file that exists is replaced.
        bisect: Whether the part of the network that is to blame is looked for where the export fails.
    """

    out: Path
    model: str | None = None
    checkpoint: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    audio: Path | None = None
    force: bool = False
    bisect: bool = False


@dataclass(frozen=True)
class Conversion:
    """How a detector becomes a file of one format.

    Attributes:
        format: The format's row.
        convert: Writes the frozen graph, with the manifest's facts inside, to a path that does not exist yet.
        run_part: Exports a part of the network alone, and runs it.
        batch: How many clips a run takes; None for any number.
        precision: What the file computes in.
        recipe: What the manifest says of how the network was put.
        witness: Opens the finished file in another way, where there is one.
    """

    format: Format
    convert: Callable[[ScoreGraph, Manifest, Path], None]
    run_part: Trial
    batch: int | None = 1
    precision: str = "float32"
    recipe: str = "none"
    witness: Callable[[Path], Runtime] | None = None


@dataclass(frozen=True)
class Exported:
    """A file that was written and verified.

    Attributes:
        path: The file.
        manifest: Its manifest.
        comparison: Of its scores with PyTorch's.
        witnessed: The same by a second runtime, where there is one.
        facts: What else the exporter's table says of it.
    """

    path: Path
    manifest: Manifest
    comparison: Comparison
    witnessed: Comparison | None = None
    facts: dict[str, str] = field(default_factory=dict)


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


def options_of(args: argparse.Namespace) -> Options:
    """Returns what the flags that every exporter has ask for.

    Raises:
        UserError: An argument of ``--set`` has no ``=``.
    """
    overrides = parse_overrides(args.overrides)
    if args.wavlm is not None:
        overrides["wavlm"] = args.wavlm
    return Options(
        out=args.out,
        model=args.model,
        checkpoint=args.checkpoint,
        overrides=overrides,
        name=args.name,
        audio=args.verify_audio,
        force=args.force,
        bisect=args.bisect,
    )


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Returns the model configuration that texts such as ``layers=2`` ask for.

    Raises:
        UserError: One has no ``=``.
    """
    overrides: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UserError(f"--set takes KEY=VALUE, got {text!r}")
        try:
            overrides[key] = json.loads(value)
        except ValueError:
            overrides[key] = value
    return {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}


def take_weights(options: Options) -> Weights:
    """Returns the weights that are asked for."""
    return load_pretrained(options.checkpoint, options.model, **options.overrides)


def export(weights: Weights, conversion: Conversion, options: Options) -> Exported:
    """Converts a detector, verifies the file and puts it and its manifest into a folder.

    Raises:
        UserError: The target exists and is not to be replaced, the folder is called like a file, or there is
            no audio to verify on.
        CheckFailed: The file's scores are not PyTorch's. Nothing is left behind.
    """
    row = conversion.format
    target = row.path_in(options.out, stem_of(weights, options.name))
    refuse_to_replace((target, manifest_path(target)), options.force)
    keep_freed_memory()
    clips, clips_name = parity_clips(options.audio, weights.detector.clip_samples)
    graph = ScoreGraph(weights.detector)
    manifest = describe(
        weights, row, batch=conversion.batch, precision=conversion.precision, recipe=conversion.recipe
    )
    with partial_folder(options.out) as folder:
        path = folder / target.name
        tolerance = row.tolerance_of(conversion.precision)
        trial = conversion.run_part if options.bisect else None
        with naming_culprit(weights.detector, trial, clips, tolerance):
            conversion.convert(graph, manifest, path)
            manifest = replace(manifest, file=describe_file(path))
            manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
            reference = EagerRuntime(weights.detector, Path(weights.detector.name))
            comparison = compare(reference, load(path), clips)
            if not comparison.within(tolerance):
                raise ScoresDiffer(_difference(target, comparison, clips_name, tolerance), comparison.worst)
            witness = conversion.witness
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


def print_table(exported: Exported) -> None:
    """Prints what was written and how it compares, one fact a line."""
    parity = exported.manifest.parity
    file = exported.manifest.file
    assert parity is not None
    assert file is not None
    facts = {
        "file": str(exported.path),
        "model": f"{exported.manifest.model}, weights: {exported.manifest.weights}",
        "size": f"{file.bytes / 1024:.1f} KiB",
        **exported.facts,
        "parity": f"{parity.max_difference:.1e} at most on {parity.audio} (allowed {parity.tolerance:.0e})",
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    sys.stdout.flush()
