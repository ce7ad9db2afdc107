"""Quantizes an ONNX file that this project exported: MODEL.onnx to MODEL.RECIPE.onnx, with its own manifest.

    python quantize/onnx_int8.py out/aasist-l.onnx --recipe w8a8 --audio clips
    python quantize/onnx_int8.py out/aasist-l.onnx --recipe w8a8-mixed --calibration all --audio my-recordings
    python quantize/onnx_int8.py out/aasist-l.onnx --recipe f16 --audio clips --protocol clips/manifest.tsv

Recipes: w8a8 (static INT8), w8a8-learned-mixed (trained on the calibration clips for minutes: more exact, and
nearly as fast), w8a8-s8, w8a8-rr (same scores on processors without VNNI), w8a16, w8, w4 (weights alone),
w8d8 (dynamic), f16, f16-mixed, auto (quantize/sensitivity.py finds the layers to leave in float);
quantize/recipes.py spells out the grammar.

--calibration takes a list of paths below the folder of --audio (default: quantize/calibration_clips.txt), or
`all`. Without --audio it calibrates on generated signals: enough to try a recipe out, not to ship the result.
With --protocol, thresholds and calibration are fitted to the file's own scores on the protocol's dev split.

The file is compared with MODEL on the calibration clips, and not written where it has nothing to do with it
any more. Whether it may replace MODEL is for benchmarks/parity.py to say, on clips that no choice was made
on.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.audio import SAMPLE_RATE, fit_length, load_audio
from antispoof.data import BONAFIDE, read_protocol, resolve_audio
from antispoof.errors import EXIT_DONE, CheckFailed, UserError, run
from antispoof.manifest import Manifest, Parity, describe_file, manifest_path
from antispoof.thresholds import Decisions, fit_decisions
from quantize.calibration import CLIPS, OBSERVERS, calibration_clips
from quantize.recipes import Recipe, parse_recipe
from quantize.static_int import Calibrated, calibrate
from runtimes import Runtime, load

METADATA_KEY = "antispoof"  # under which the exporter embeds the manifest's facts
UPDATES = 400  # of a learned recipe: 4 minutes of one core for AASIST-L
FLOAT16_TOLERANCE = 0.015  # in score: an eighth of the smallest change that 8 bits make


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="onnx_int8.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "model", type=Path, metavar="MODEL", help="an exported float32 .onnx, its manifest beside it"
    )
    p.add_argument("--recipe", default="w8a8", metavar="NAME", help="default w8a8")
    p.add_argument("--calibration", default=str(CLIPS), metavar="LIST", help="list of clips, or `all`")
    p.add_argument("--audio", type=Path, metavar="DIR", help="folder that the list's paths begin at")
    p.add_argument("--observer", choices=OBSERVERS, default="mse", help="how ranges are chosen (default mse)")
    p.add_argument(
        "--updates", type=int, default=UPDATES, metavar="N", help=f"of -learned (default {UPDATES})"
    )
    p.add_argument("--protocol", type=Path, help="fit thresholds and calibration on this list's split")
    p.add_argument("--split", default="dev", help="of the protocol (default dev)")
    p.add_argument("--protocol-audio", type=Path, metavar="DIR", help="folder of its audio (default --audio)")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: the model's)")
    p.add_argument("--force", action="store_true", help="replace a file that exists")
    return p


def convert(model: Any, recipe: Recipe, clips: np.ndarray, args: argparse.Namespace) -> Any:
    """Returns the model as the recipe wants it."""
    if recipe.float16:
        from quantize.float16 import to_float16

        return to_float16(model, recipe)
    if recipe.activations == "static":
        return static(model, recipe, clips, args).quantize()
    from quantize import other_int

    by_kind = {"float": other_int.weights_only, "dynamic": other_int.dynamic}
    return by_kind[recipe.activations](model, recipe)


def static(model: Any, recipe: Recipe, clips: np.ndarray, args: argparse.Namespace) -> Calibrated:
    """Returns the model with its ranges, learned and searched as far as the recipe wants it."""
    calibrated = calibrate(model, recipe, clips, args.observer)
    if recipe.learned:
        from quantize.learned import Schedule, learn

        calibrated = learn(calibrated, clips, Schedule(updates=args.updates))
    if recipe.searched:
        from quantize.sensitivity import find, names_of, table

        trials = (
            None if args.protocol is None else (args.protocol, args.protocol_audio or args.audio, args.split)
        )
        found = find(
            calibrated, model, clips, recipe, args.out / args.model.stem, trials=trials, force=args.force
        )
        print(table(found, names_of(model)), file=sys.stderr)
        calibrated = replace(calibrated, small=frozenset(found.chosen.layers))
    return calibrated


def add_offset(model: Any, offset: float) -> None:
    """Makes the model add a constant to its score."""
    from onnx import helper, numpy_helper

    graph = model.graph
    score, raw = graph.output[0].name, "score.uncorrected"
    for node in graph.node:
        node.output[:] = [raw if name == score else name for name in node.output]
        node.input[:] = [raw if name == score else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.float32(offset), "score.offset"))
    graph.node.append(helper.make_node("Add", [raw, "score.offset"], [score], name="score.correction"))


def embed(model: Any, manifest: Manifest) -> bytes:
    """Returns the file's bytes with the manifest's facts inside, in the place of the float file's."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, manifest.facts()
    return model.SerializeToString(deterministic=True)


def write(model: Any, manifest: Manifest, path: Path) -> Manifest:
    """Writes a model and its manifest; returns the manifest, which now knows the file."""
    path.write_bytes(embed(model, manifest))
    manifest = replace(manifest, file=describe_file(path))
    manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def fit_on_protocol(runtime: Runtime, protocol: Path, audio: Path, split: str) -> Decisions:
    """Returns thresholds and calibration for a file, from its own scores on a split of a protocol."""
    trials = read_protocol(protocol, None, split)
    samples = runtime.input.samples
    clips = (
        fit_length(load_audio(resolve_audio(trial, audio), limit_seconds=samples / SAMPLE_RATE), samples)
        for trial in trials
    )
    scores = np.array([runtime.score(clip[None])[0] for clip in clips], np.float64)
    genuine = np.array([trial.label == BONAFIDE for trial in trials])
    data = f"{len(trials)} trials of {protocol.name}, split {split}"
    return fit_decisions(scores[genuine], scores[~genuine], data)


def tolerance_of(recipe: Recipe, reference: np.ndarray) -> float:
    """Returns the largest difference in score that a file may have and still be written."""
    return FLOAT16_TOLERANCE if recipe.float16 else float(np.std(reference))


def quantize(args: argparse.Namespace, target: Path, recipe: Recipe) -> tuple[Manifest, dict[str, float]]:
    """Writes the quantized file and its manifest.

    1. convert the graph
    2. take the mean error of its score off, for integers
    3. compare it with the float file
    4. fit thresholds, where there is a protocol
    5. move both files into place, or leave nothing behind
    """
    import onnx

    source = load(args.model)
    if source.manifest is None or source.manifest.precision != "float32":
        raise UserError(f"{args.model}: only float32 .onnx files can be quantized; export the model")
    args.out.mkdir(parents=True, exist_ok=True)
    clips, clips_name = calibration_clips(args.calibration, args.audio, source.input.samples)
    model = convert(onnx.load(args.model), recipe, clips, args)
    manifest = replace(
        source.manifest,
        precision=recipe.precision,
        recipe=recipe.name,
        calibration=None,
        thresholds=(),
        parity=None,
        file=None,
    )
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=args.out))
    try:
        path = folder / target.name
        manifest = write(model, manifest, path)
        expected = source.score(clips).astype(np.float64)
        if not recipe.float16:
            offset = float(np.mean(expected - load(path).score(clips)))
            add_offset(model, offset)
            manifest = write(model, manifest, path)
        runtime = load(path)
        difference = np.abs(expected - runtime.score(clips))
        tolerance = tolerance_of(recipe, expected)
        if not difference.max() <= tolerance:
            raise CheckFailed(
                f"{recipe.name} changes a score of {clips_name} by {difference.max():.3g}, more than "
                f"{tolerance:.3g}; nothing was written"
            )
        parity = Parity(args.model.name, len(clips), clips_name, float(difference.max()), tolerance)
        manifest = replace(manifest, parity=parity)
        if args.protocol is not None:
            decisions = fit_on_protocol(runtime, args.protocol, args.protocol_audio or args.audio, args.split)
            for reason in decisions.left_out:
                print(f"no threshold for {reason}", file=sys.stderr)
            manifest = replace(manifest, calibration=decisions.calibration, thresholds=decisions.thresholds)
            manifest = write(model, manifest, path)
        manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
        manifest_path(path).replace(manifest_path(target))
        path.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest, {
        "median": float(np.median(difference)),
        "p95": float(np.quantile(difference, 0.95)),
        "largest": float(difference.max()),
    }


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    recipe = parse_recipe(args.recipe)
    args.out = args.out or args.model.parent
    target = args.out / f"{args.model.stem}.{recipe.name}.onnx"
    if not args.force and (existing := [p for p in (target, manifest_path(target)) if p.exists()]):
        raise UserError(f"{existing[0]} exists; --force replaces it")
    if args.updates < 1:
        raise UserError("--updates takes at least 1")
    if args.protocol is not None and not (args.protocol_audio or args.audio):
        raise UserError("--protocol needs --audio or --protocol-audio, the folder that its paths begin at")
    manifest, differences = quantize(args, target, recipe)
    assert manifest.file is not None
    assert manifest.parity is not None
    before = args.model.stat().st_size
    rows = {
        "file": str(target),
        "recipe": f"{recipe.name}: {recipe.precision}",
        "size": f"{manifest.file.bytes / 1024:.1f} KiB, {manifest.file.bytes / before:.2f} of the source",
        "difference": ", ".join(f"{value:.3g} {name}" for name, value in differences.items())
        + f", on {manifest.parity.audio}",
        **{f"threshold {row.name}": f"{row.score:.4g}" for row in manifest.thresholds},
    }
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
