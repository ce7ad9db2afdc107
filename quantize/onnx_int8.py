"""Quantizes an ONNX file that this project exported: MODEL.onnx to MODEL.RECIPE.onnx, with its own manifest.

    python quantize/onnx_int8.py out/aasist-l.onnx --audio clips                      # w8a8-rr
    python quantize/onnx_int8.py out/aasist-l.onnx --recipe w8a8-rr-mixed --calibration all --audio recordings
    python quantize/onnx_int8.py out/aasist-l.onnx --recipe f16 --audio clips --protocol clips/manifest.tsv

Recipes: w8a8-rr (static INT8), w8a8-rr-learned-mixed (trained on the calibration clips for minutes: more
exact, and nearly as fast), w8a8-rr-f64 (the same score to the bit on every processor), w8a8 (all 8 bits of a
weight: right on phones and new processors, wrong on x86 without VNNI), w8a8-s8, w8a16, w8, w4 (weights
alone), w8d8-rr (dynamic: large projections alone), f16, f16-mixed, auto (quantize/sensitivity.py finds the
layers to leave in float); quantize/recipes.py spells out the grammar.

--calibration takes a list of paths below the folder of --audio (default: quantize/calibration_clips.txt), or
`all`. Without --audio it calibrates on generated signals: enough to try a recipe out, not to ship the result.
With --protocol, thresholds and calibration are fitted to the file's own scores, as runtimes/fit_thresholds.py
does, which can do it later too. Without, those of MODEL stay, unless rounding moved the scores too far.

The file is compared with MODEL on the calibration clips, and not written where it has nothing to do with it
any more. Whether it may replace MODEL is for benchmarks/parity.py to say, on clips that no choice was made
on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, run
from antispoof.manifest import Manifest
from quantize.onnx_graph import OnnxGraph
from quantize.pipeline import Options, Product, add_arguments, run_command
from quantize.recipes import Recipe, parse_recipe
from quantize.scope import layers_in_scope, require_layers
from quantize.static_int import Calibrated, calibrate
from runtimes.onnx_bytes import embedded

DEFAULT = "w8a8-rr"  # with all 8 bits they saturate on x86 without VNNI: fscnn's score is off by 0.7 there
LEAST_UPDATES = 20
UPDATES = 400  # of a learned recipe: 4 minutes of one core for AASIST-L


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="onnx_int8.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(p, PRODUCT, DEFAULT)
    p.add_argument("--updates", type=int, metavar="N", help=f"of -learned (default {UPDATES})")
    return p


def convert(model: Any, recipe: Recipe, clips: np.ndarray, options: Options) -> Any:
    """Returns the model as the recipe wants it."""
    if recipe.float16:
        from quantize.half_precision import to_float16

        return to_float16(model, recipe)
    if recipe.activations == "static":
        quantized = static(model, recipe, clips, options).quantize()
        if recipe.float64:
            from quantize.float64 import to_float64

            quantized = to_float64(quantized)
        return quantized
    from quantize import uncalibrated_int

    by_kind = {"float": uncalibrated_int.weights_only, "dynamic": uncalibrated_int.dynamic}
    return by_kind[recipe.activations](model, recipe)


def static(model: Any, recipe: Recipe, clips: np.ndarray, options: Options) -> Calibrated:
    """Returns the model with its ranges, learned and searched as far as the recipe wants it."""
    require_layers(layers_in_scope(OnnxGraph(model), recipe.everything), recipe)
    calibrated = calibrate(model, recipe, clips, options.observer)
    if recipe.learned:
        from quantize.learned import Schedule, learn

        calibrated = learn(calibrated, clips, Schedule(updates=options.updates or UPDATES))
    if recipe.searched:
        from quantize.sensitivity import find, material_of, names_of, table

        material = material_of(model, clips, options.trials)
        found = find(calibrated, model, material, options.stem, force=options.force)
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
    graph.initializer.append(numpy_helper.from_array(np.array(offset, np.float32), "score.offset"))
    graph.node.append(helper.make_node("Add", [raw, "score.offset"], [score], name="score.correction"))


def takes(recipe: Recipe) -> bool:
    """Whether an ONNX file can be of a recipe, and every word of its name says something of the file."""
    if recipe.palette or recipe.pruned:
        return False
    if recipe.activations == "dynamic":  # ONNX Runtime's ranges, which have no sign
        return recipe.weight_bits == 8 and not (recipe.mixed or recipe.signed_activations)
    if recipe.float16:
        return not recipe.everything
    return recipe.activations == "static" or not recipe.mixed


def convert_file(path: Path, recipe: Recipe, clips: np.ndarray, options: Options) -> Any:
    """Returns the model in a file as the recipe wants it."""
    import onnx

    return convert(onnx.load(path), recipe, clips, options)


def write_file(model: Any, manifest: Manifest, path: Path) -> None:
    """Writes a model with its manifest's facts inside."""
    path.write_bytes(embedded(model, manifest.facts()))


PRODUCT = Product(
    format="onnx",
    takes=takes,
    recipes="w8a8, w8a16, w8d8, w8, w4, f16 and their options",
    convert=convert_file,
    write=write_file,
    add_offset=add_offset,
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.updates is not None and not parse_recipe(args.recipe).learned:
        raise UserError(f"--updates is of the recipes with -learned, and {args.recipe} is none of them")
    if args.updates is not None and args.updates < LEAST_UPDATES:
        raise UserError(f"--updates takes at least {LEAST_UPDATES}")
    return run_command(PRODUCT, args)


if __name__ == "__main__":
    run(main)
