"""Exports a detector to TFLite and proves that the file scores like PyTorch.

    python export/to_tflite.py                                  # the bundled model, into out/
    python export/to_tflite.py --model aasist --checkpoint official
    python export/to_tflite.py --checkpoint my.pth --verify-audio clips/

Writes NAME.tflite and NAME.tflite.manifest.json, for one clip a run. Exit code 1, and nothing
written, where the scores of the file, run by LiteRT with XNNPACK, are not those of PyTorch. Where tf2onnx
and TensorFlow are installed (pip install 'antispoof[witness]'), the file is also turned back into ONNX and
has to score right there.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from antispoof.errors import run
from antispoof.formats import format_named
from antispoof.manifest import Manifest
from antispoof.pretrained import Weights
from export import tflite_file, witness
from export.graph import ScoreGraph
from export.pipeline import (
    Conversion,
    Exported,
    Options,
    add_arguments,
    export,
    options_of,
    print_table,
    take_weights,
)
from runtimes.litert import partitions


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = argparse.ArgumentParser(
        prog="to_tflite.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    options = options_of(build_parser().parse_args(argv))
    print_table(write(take_weights(options), options))
    return 0


def write(weights: Weights, options: Options) -> Exported:
    """Writes and verifies the file; errors are those of `export`."""
    counted: dict[str, int] = {}

    def convert(graph: ScoreGraph, manifest: Manifest, path: Path) -> None:
        model: Any = tflite_file.convert(graph)
        counted.update(tflite_file.operations(model))
        path.write_bytes(tflite_file.embed(model, manifest))

    conversion = Conversion(
        format_named("tflite"),
        convert,
        tflite_file.run_part,
        witness=witness.turned_back if witness.is_available() else None,
    )
    exported = export(weights, conversion, options)
    facts = {
        "operations": f"{sum(counted.values())} ({len(counted)} kinds)",
        "XNNPACK": partitions(exported.path).sentence(),
    }
    if exported.witnessed:
        facts["turned back"] = f"{exported.witnessed.max_difference:.1e} at most, by tf2onnx and ONNX Runtime"
    return replace(exported, facts=facts)


if __name__ == "__main__":
    run(main)
