"""Exports a detector to ONNX and proves that the file scores like PyTorch.

    python export/to_onnx.py                                    # the bundled model, into out/
    python export/to_onnx.py --model aasist --checkpoint official
    python export/to_onnx.py --checkpoint my.pth --verify-audio clips/ --dynamic-batch

Writes NAME.onnx and NAME.onnx.manifest.json. Exit code 1, and nothing written, where the scores of
the file, run by ONNX Runtime, are not those of PyTorch.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from antispoof.errors import UserError, run
from antispoof.formats import format_named
from antispoof.manifest import Manifest
from export import onnx_file
from export.graph import ScoreGraph
from export.pipeline import add_arguments, export, print_table, take_weights

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
    counted: dict[str, int] = {}

    def convert(graph: ScoreGraph, manifest: Manifest, path: Path) -> None:
        model: Any = onnx_file.convert(
            graph, opset=args.opset, dynamic_batch=args.dynamic_batch, time_tiles=args.time_tiles
        )
        counted.update(onnx_file.operations(model))
        path.write_bytes(onnx_file.embed(model, manifest))

    exported = export(
        take_weights(args),
        format_named("onnx"),
        convert,
        out=args.out,
        name=args.name,
        batch=None if args.dynamic_batch else 1,
        audio=args.verify_audio,
        force=args.force,
        trial=partial(onnx_file.run_part, opset=args.opset, time_tiles=args.time_tiles)
        if args.bisect
        else None,
    )
    print_table(exported, {"nodes": f"{sum(counted.values())} ({len(counted)} kinds), opset {args.opset}"})
    return 0


if __name__ == "__main__":
    run(main)
