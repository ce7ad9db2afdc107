"""Quantizes a TFLite file that this project exported: MODEL.tflite to MODEL.RECIPE.tflite, with its manifest.

    python quantize/tflite_int8.py out/aasist-l.tflite --audio clips
    python quantize/tflite_int8.py --model aasist-l --recipe w8 --audio clips --protocol clips/manifest.tsv
    python quantize/tflite_int8.py out/fscnn.tflite --recipe w8a8 --calibration all --audio my-recordings

Recipes: w8d8 (dynamic INT8: the range of each convolution's input is found in every run, and with it in every
tile of time; exact, and fast on CPUs), w8d8-mixed (small layers stay float: more exact still), w8a8 and
w8a16 (static, for processors that take nothing else; on CPUs less exact, and w8a16 slow), w8, w4 (weights
alone), f16-mixed (weights in float16). Whether half precision is computed in is for the runtime to say, not
for the file, so there is no f16.

The waveform is never rounded. Weights alone are rounded in graph attention too, where integers between the
layers would do harm, but those of the front end only to float16, and a Fourier transform's not at all.
Nor does f16-mixed touch the front end.

--calibration takes a list of paths below the folder of --audio (default: quantize/calibration_clips.txt), or
`all`. Without --audio it calibrates on generated signals: enough to try a recipe out, not to ship the result.
With --protocol, thresholds and calibration are fitted to the file's own scores, as runtimes/fit_thresholds.py
does, which can do it later too. Without, those of MODEL stay, unless rounding moved the scores too far.

The file is compared with MODEL on the calibration clips, and not written where it has nothing to do with it
any more. Whether it may replace MODEL is for benchmarks/parity.py to say.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, run
from antispoof.manifest import Manifest
from antispoof.native_log import silent_stderr
from quantize.calibration import Histogram, Observer, observe
from quantize.pipeline import Options, Product, add_arguments, run_command
from quantize.recipes import Recipe
from quantize.scope import require_layers
from quantize.tflite_graph import TfliteGraph, add_offset
from runtimes.tflite_bytes import embedded, unpacked

RECIPES = ("w8d8", "w8d8-mixed", "w8a8", "w8a8-mixed", "w8a16", "w8", "w4", "f16-mixed")


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="tflite_int8.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(p, PRODUCT, "w8d8")
    return p


def convert(path: Path, recipe: Recipe, clips: np.ndarray, options: Options) -> Any:
    """Returns the model in a file as the recipe wants it, a ``ModelT``.

    Raises:
        UserError: ai-edge-quantizer is not installed.
    """
    graph = TfliteGraph(path.read_bytes())
    layers = graph.layers_in_scope(recipe.mixed)
    ranges = None
    if recipe.activations in ("static", "dynamic"):
        require_layers(layers, recipe)
    if recipe.activations == "static":
        seen = graph.histograms(layers, clips)
        ranges = {name: _range(histogram, options.observer, recipe) for name, histogram in seen.items()}
    # One of the quantizer's bars has no switch; it goes to sys.stderr, which need not be the process's.
    with silent_stderr(), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the quantizer's own, about its interpreter
        try:
            from ai_edge_quantizer.quantizer import Quantizer
        except ImportError as error:
            raise UserError(f"{error.name} is not installed: pip install 'antispoof[tflite]'") from error
        quantizer = Quantizer(bytearray(graph.content))
        quantizer.load_quantization_recipe(rules(recipe, graph, layers))
        result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return unpacked(result.quantized_model)


def _range(histogram: Histogram, observer: Observer, recipe: Recipe) -> dict[str, np.ndarray]:
    """Returns what the quantizer calls a tensor's calibration."""
    grid = observe(histogram, observer, bits=recipe.activation_bits, signed=True)
    ends = [(end - grid.zero) * grid.scale for end in (grid.low, grid.high)]
    return {name: np.array(end, np.float32) for name, end in zip(("min", "max"), ends, strict=True)}


def rules(recipe: Recipe, graph: TfliteGraph, layers: Iterable[Any]) -> Any:
    """Returns the recipe in the words of ai-edge-quantizer: rules, of which the last that fits holds."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    found = RecipeManager()
    every = TFLOperationName.ALL_SUPPORTED
    scope = _pattern(graph, layers)
    if recipe.mixed and not recipe.float16:
        found.add_weight_only_config(_pattern(graph, graph.layers_in_scope()), every, num_bits=8)
    front_end = _pattern(graph, graph.front_end())
    if recipe.float16:
        _add_float16(found, ".*", every)
        found.add_quantization_config(front_end, every, None, AlgorithmName.NO_QUANTIZE)
    elif recipe.activations == "dynamic":
        found.add_dynamic_config(scope, every, num_bits=recipe.weight_bits)
    elif recipe.activations == "static":
        found.add_static_config(scope, every, recipe.activation_bits, recipe.weight_bits)
    else:
        found.add_weight_only_config(".*", every, num_bits=8)
        if recipe.weight_bits == 4:
            found.add_weight_only_config(scope, every, num_bits=4, algorithm_key=AlgorithmName.MSE)
        # A Fourier transform of few digits hears itself, fscnn's even with those of float16: its scores would
        # move by up to 0.68 instead of 0.05. Filters whose output is not squared bear float16.
        if graph.takes_powers():
            found.add_quantization_config(front_end, every, None, AlgorithmName.NO_QUANTIZE)
        else:
            _add_float16(found, front_end, every)
    return found.get_quantization_recipe()


def _pattern(graph: TfliteGraph, layers: Iterable[Any]) -> str:
    """Returns what matches a list of layers: a rule is held against the names of what an operation gives."""
    return f"^(?:{'|'.join(re.escape(graph.name(node.outputs[0])) for node in layers)});?$"


def _add_float16(found: Any, pattern: str, every: Any) -> None:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=half,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    found.add_quantization_config(pattern, every, config, AlgorithmName.FLOAT_CASTING)


def write_file(model: Any, manifest: Manifest, path: Path) -> None:
    """Writes a model with its manifest's facts inside."""
    path.write_bytes(embedded(model, manifest.facts()))


PRODUCT = Product(
    format="tflite",
    takes=lambda recipe: recipe.name in RECIPES,
    recipes=", ".join(RECIPES),
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
