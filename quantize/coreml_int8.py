"""Quantizes a Core ML package that this project exported: MODEL.mlpackage to MODEL.RECIPE.mlpackage.

    python quantize/coreml_int8.py out/aasist-l.mlpackage --audio clips
    python quantize/coreml_int8.py --model aasist-l --recipe w8a8 --audio clips --protocol clips/manifest.tsv
    python quantize/coreml_int8.py out/aasist-l.mlpackage --recipe p6 --audio clips

Recipes: w8 (INT8 weights, a scale for each channel), w8a8 (and the input of each convolution in INT8, which
the Neural Engines of A17 and later compute with), w4; p8, p6, p4 (a palette of 256, 64 or 16 values for each
layer); f32-pruned (the smallest quarter of the weights zero, and not stored), and jointly w8-pruned,
p8-pruned, p6-pruned, p4-pruned. w4 and what is joint need iOS 18: export with --target iOS18.

No Mac is needed. Ranges of activations come from the calibration clips, through the evaluator that stands in
for Core ML (runtimes/mil.py), which then runs the package that was written. The waveform is never rounded,
nor the map of one channel that a front end makes of it, nor what enters graph attention; the front end's
weights stay as they are.

--calibration takes a list of paths below the folder of --audio (default: quantize/calibration_clips.txt), or
`all`. Without --audio it calibrates on generated signals: enough to try a recipe out, not to ship the result.
With --protocol, thresholds and calibration are fitted to the file's own scores, as runtimes/fit_thresholds.py
does, which can do it later too. Without, those of MODEL stay, unless rounding moved the scores too far.

The package is compared with MODEL on the calibration clips, and not written where it has nothing to do with
it any more. Whether it may replace MODEL is for benchmarks/parity.py to say.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, run
from antispoof.manifest import Manifest
from quantize.calibration import Histogram, Observer, observe
from quantize.coreml_scope import activations_in_scope, front_end
from quantize.palette import palette_of
from quantize.pipeline import Options, Product, add_arguments, run_command
from quantize.recipes import Recipe
from quantize.scope import require_layers
from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.package import read_package
from runtimes.ml_program.program import Program
from runtimes.mlpackage import import_coremltools, quiet
from runtimes.package_files import write_package

FEWEST_WEIGHTS = 512  # of a layer worth compressing; below, a table's or a scale's own cost eats the gain
PRUNED = 0.25  # of the weights; half of them, without training, leaves AASIST-L a correlation of 0.67
BLOCK = 16  # weights that share a scale in 4 bits
IOS18 = "CoreML8"  # what a program for iOS 18 calls its set of operations
IOS17_SPECIFICATION = 8
KINDS = (
    "w8",
    "w4",
    "w8a8",
    "p8",
    "p6",
    "p4",
    "f32-pruned",
    "w8-pruned",
    "p8-pruned",
    "p6-pruned",
    "p4-pruned",
)


@dataclass
class Held:
    """coremltools' model, which every step replaces by another."""

    model: Any


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="coreml_int8.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(p, PRODUCT, "w8")
    return p


def convert(path: Path, recipe: Recipe, clips: np.ndarray, options: Options) -> Held:
    """Returns the program of a package as the recipe wants it.

    Raises:
        UserError: coremltools is not installed, or the recipe needs a later system than the package.
    """
    program = read_package(path)
    joint = recipe.pruned and recipe.weight_bits < 16
    if program.opset < IOS18 and (joint or (recipe.weight_bits == 4 and not recipe.palette)):
        raise UserError(
            f"{recipe.name} needs iOS 18, and {path} is for earlier ones: export with --target iOS18"
        )
    ranges = {}
    if recipe.activations == "static":
        layers = activations_in_scope(program)
        require_layers(layers, recipe)
        ranges = find_ranges(program, layers, clips, options.observer)
    coremltools = import_coremltools()
    with quiet():
        model = coremltools.models.MLModel(str(path), skip_model_load=True)
        if ranges:
            model = with_integer_activations(model, layers, ranges)
        model = with_small_weights(model, recipe, front_end(program))
    return Held(model)


def find_ranges(
    program: Program, layers: Mapping[str, str], clips: np.ndarray, observer: Observer
) -> dict[str, dict[str, float]]:
    """Returns what coremltools calls the statistics of each tensor that a layer reads.

    Args:
        program: In float32.
        layers: The tensor that each layer reads, by the layer's name.
        clips: ``(clips, samples)``.
        observer: How ranges are chosen.
    """
    seen = {name: Histogram() for name in layers.values()}
    (entry, kind), *_ = program.inputs
    evaluator = Evaluator(program)
    for clip in clips:
        for result in evaluator.trace({entry: np.broadcast_to(clip, kind.shape)}):
            for (name, _), value in zip(result.operation.outputs, result.values, strict=True):
                if name in seen:
                    seen[name].add(value.numpy())
    grids = {name: observe(values, observer, bits=8, signed=True) for name, values in seen.items()}
    return {
        name: {"rmin": (grid.low - grid.zero) * grid.scale, "rmax": (grid.high - grid.zero) * grid.scale}
        for name, grid in grids.items()
    }


def with_integer_activations(
    model: Any, layers: Iterable[str], ranges: Mapping[str, Mapping[str, float]]
) -> Any:
    """Returns a model that rounds what some layers read, given the ranges.

    coremltools' own command takes the ranges from Core ML itself, and so needs a Mac. The pass behind it does
    not.
    """
    import coremltools.optimize.coreml as optimize
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    rounded = optimize.OpLinearQuantizerConfig(mode="linear")
    config = optimize.OptimizationConfig(op_name_configs=dict.fromkeys(layers, rounded))
    insert = PASS_REGISTRY["compression::insert_prefix_quantize_dequantize_pair"]
    insert.set_options([PassOption("config", config), PassOption("activation_stats", dict(ranges))])
    return _passed(model, [insert, PASS_REGISTRY["common::dequantize_quantize_pair_elimination"]])


def _passed(model: Any, passes: list[Any]) -> Any:
    from coremltools.models.utils import _apply_graph_pass

    return _apply_graph_pass(model, passes, spec_version=IOS17_SPECIFICATION)


def with_small_weights(model: Any, recipe: Recipe, kept: Iterable[str]) -> Any:
    """Returns a model with weights in fewer bits, but for those of the layers to be ``kept``."""
    import coremltools.optimize.coreml as optimize

    def everywhere_but_there(one: Any) -> Any:
        return optimize.OptimizationConfig(global_config=one, op_name_configs=dict.fromkeys(kept))

    joint = False
    if recipe.pruned:
        pruner = optimize.OpMagnitudePrunerConfig(target_sparsity=PRUNED, weight_threshold=FEWEST_WEIGHTS)
        model, joint = optimize.prune_weights(model, everywhere_but_there(pruner)), True
    if recipe.palette:
        palette = optimize.OpPalettizerConfig(
            mode="custom",
            lut_function=lambda weights: palette_of(weights, recipe.weight_bits),
            weight_threshold=FEWEST_WEIGHTS,
        )
        return optimize.palettize_weights(model, everywhere_but_there(palette), joint_compression=joint)
    if recipe.weight_bits < 16:
        blocks = {"dtype": "int4", "granularity": "per_block", "block_size": BLOCK}
        linear = optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric",
            weight_threshold=FEWEST_WEIGHTS,
            **(blocks if recipe.weight_bits == 4 else {}),
        )
        return optimize.linear_quantize_weights(model, everywhere_but_there(linear), joint_compression=joint)
    return model


def add_offset(held: Held, offset: float) -> None:
    """Makes a program add a constant to its score."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass

    class AddOffset(AbstractGraphPass):
        def apply(self, prog: Any) -> None:
            block = prog.functions["main"]
            with block:
                (raw,) = block.outputs
                score, raw.name = raw.name, "score_uncorrected"
                block.set_outputs([Builder.add(x=raw, y=np.float32(offset), name=score)])

    with quiet():
        held.model = _passed(held.model, [AddOffset()])


def write_file(held: Held, manifest: Manifest, path: Path) -> None:
    """Writes a program as a package, with its manifest's facts inside."""
    write_package(held.model, manifest, path)


PRODUCT = Product(
    format="coreml",
    takes=lambda recipe: recipe.name in KINDS,
    recipes=", ".join(KINDS),
    convert=convert,
    write=write_file,
    add_offset=add_offset,
    describe=lambda recipe: replace(recipe, signed_activations=True).precision,
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command(PRODUCT, parser().parse_args(argv))


if __name__ == "__main__":
    run(main)
