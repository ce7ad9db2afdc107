"""Exports a detector to ONNX and proves that the file scores like PyTorch.

    python export/to_onnx.py                                    # the bundled model, into out/
    python export/to_onnx.py --model aasist --checkpoint official
    python export/to_onnx.py --checkpoint my.pth --verify-audio clips/ --dynamic-batch

Writes NAME.onnx and NAME.onnx.manifest.json. Exit code 1, and nothing written, where the scores of
the file, run by ONNX Runtime, are not those of PyTorch.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from antispoof.errors import UserError, run
from antispoof.formats import format_named
from antispoof.manifest import Manifest
from antispoof.pretrained import Weights
from export import onnx_file
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
from runtimes.onnx_bytes import embedded

MOST_TILES = 64  # beyond, a tile is hardly wider than what it shares with its neighbours


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = argparse.ArgumentParser(
        prog="to_onnx.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--opset", type=int, default=onnx_file.DEFAULT_OPSET, help="ONNX operator set (default 18)"
    )
    parser.add_argument("--dynamic-batch", action="store_true", help="let one run score any number of clips")
    parser.add_argument(
        "--time-tiles",
        type=int,
        default=1,
        metavar="N",
        help="run the first, widest blocks in N tiles of time: same scores, less memory, more nodes",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    args = build_parser().parse_args(argv)
    if args.opset not in onnx_file.OPSETS:
        raise UserError(
            f"--opset takes {onnx_file.OPSETS.start} to {onnx_file.OPSETS.stop - 1}, not {args.opset}"
        )
    if not 1 <= args.time_tiles <= MOST_TILES:
        raise UserError(f"--time-tiles takes 1 to {MOST_TILES}, not {args.time_tiles}")
    options = options_of(args)
    exported = write(
        take_weights(options),
        options,
        opset=args.opset,
        dynamic_batch=args.dynamic_batch,
        time_tiles=args.time_tiles,
    )
    print_table(exported)
    return 0


def write(
    weights: Weights,
    options: Options,
    *,
    opset: int = onnx_file.DEFAULT_OPSET,
    dynamic_batch: bool = False,
    time_tiles: int = 1,
) -> Exported:
    """Writes and verifies the file. Arguments and errors are those of `onnx_file.convert` and `export`."""
    detector = weights.detector
    # Here and not while converting, of which every failure has --bisect look for a part that is to blame.
    if time_tiles > 1 and not any(getattr(part, "cuts_time", False) for part in detector.modules()):
        raise UserError(f"--time-tiles: nothing in {detector.name} is computed in tiles of time")
    counted: dict[str, int] = {}

    def convert(graph: ScoreGraph, manifest: Manifest, path: Path) -> None:
        model: Any = onnx_file.convert(graph, opset=opset, dynamic_batch=dynamic_batch, time_tiles=time_tiles)
        counted.update(onnx_file.operations(model))
        path.write_bytes(embedded(model, manifest.facts()))

    conversion = Conversion(
        format_named("onnx"),
        convert,
        partial(onnx_file.run_part, opset=opset, time_tiles=time_tiles),
        batch=None if dynamic_batch else 1,
    )
    exported = export(weights, conversion, options)
    nodes = f"{sum(counted.values())} ({len(counted)} kinds), opset {opset}"
    return replace(exported, facts={"nodes": nodes})


if __name__ == "__main__":
    run(main)
