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
from pathlib import Path
from typing import Any

from antispoof.errors import run
from antispoof.formats import format_named
from antispoof.manifest import Manifest
from export import tflite_file, witness
from export.graph import ScoreGraph
from export.pipeline import add_arguments, export, print_table, take_weights
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
    args = build_parser().parse_args(argv)
    counted: dict[str, int] = {}

    def convert(graph: ScoreGraph, manifest: Manifest, path: Path) -> None:
        model: Any = tflite_file.convert(graph)
        counted.update(tflite_file.operations(model))
        path.write_bytes(tflite_file.embed(model, manifest))

    exported = export(
        take_weights(args),
        format_named("tflite"),
        convert,
        out=args.out,
        name=args.name,
        audio=args.verify_audio,
        force=args.force,
        trial=tflite_file.run_part if args.bisect else None,
        witness=witness.turned_back if witness.is_available() else None,
    )
    rows = {
        "operations": f"{sum(counted.values())} ({len(counted)} kinds)",
        "XNNPACK": partitions(exported.path).sentence(),
    }
    if exported.witnessed:
        rows["turned back"] = f"{exported.witnessed.max_difference:.1e} at most, by tf2onnx and ONNX Runtime"
    print_table(exported, rows)
    return 0


if __name__ == "__main__":
    run(main)
