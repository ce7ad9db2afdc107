"""Exports detectors to every format and shows in one table what came of it.

    python export/all.py                                        # the bundled model, into out/
    python export/all.py --model aasist aasist-l --checkpoint official
    python export/all.py --model bimamba-sinc --checkpoint my.pth --format onnx tflite --json exports.json

Takes the flags that all exporters share, and does what they do one after the other. A format that fails
is a row that says why; the others are written all the same. Exit code 1 if one failed.

Partitions are the pieces in which the format's runtime on a CPU gets the graph (see export/lint.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, CheckFailed, UserError, one_line, run
from antispoof.formats import format_named
from antispoof.model_names import model_names
from antispoof.outputs import refuse_existing, refuse_to_replace, write_whole
from antispoof.pretrained import DEFAULT_MODEL, Weights
from export import to_coreml, to_onnx, to_tflite
from export.lint import lint
from export.pipeline import Exported, Options, add_arguments, options_of, take_weights

EXPORTERS: dict[str, Callable[[Weights, Options], Exported]] = {
    "onnx": to_onnx.write,
    "tflite": to_tflite.write,
    "coreml": to_coreml.write,
}
LONGEST_REASON = 160
HEADER = ("model", "format", "size", "operations", "partitions", "largest difference", "time")


@dataclass(frozen=True)
class Row:
    """What came of one model in one format.

    Attributes:
        model: The model.
        format: The format.
        seconds: How long it took, the check included.
        path: The file.
        bytes: Its size.
        operations: How many operations a run computes.
        partitions: In how many pieces the format's runtime on a CPU gets them.
        max_difference: Largest difference in score from PyTorch.
        failure: Why there is no file.
    """

    model: str
    format: str
    seconds: float
    path: str = ""
    bytes: int = 0
    operations: int = 0
    partitions: int = 0
    max_difference: float | None = None
    failure: str = ""

    def cells(self) -> tuple[str, ...]:
        """Returns the row as text."""
        clock = f"{self.seconds:.1f} s"
        if self.failure:
            return (self.model, self.format, f"failed after {clock}: {self.failure}")
        size = f"{self.bytes / 1024:.1f} KiB"
        counts = (str(self.operations), str(self.partitions))
        return (self.model, self.format, size, *counts, f"{self.max_difference:.1e}", clock)


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = argparse.ArgumentParser(
        prog="all.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        conflict_handler="resolve",  # the exporters take one model
    )
    add_arguments(parser)
    parser.add_argument(
        "--model",
        nargs="+",
        choices=model_names(),
        default=[],
        metavar="NAME",
        help=f"which networks: {', '.join(model_names())} (default {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--format", nargs="+", choices=EXPORTERS, default=list(EXPORTERS), help="which formats (default all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    args = build_parser().parse_args(argv)
    models = list(dict.fromkeys(args.model)) or [None]
    if args.name and len(models) > 1:
        raise UserError("--name is for one model")
    if args.json and not args.json.parent.is_dir():
        raise UserError(f"{args.json}: there is no folder {args.json.parent}")
    if args.json:
        refuse_existing(args.json, args.force)
    formats = list(dict.fromkeys(args.format))
    wanted = [replace(options_of(args), model=model) for model in models]
    names = [_checked(options, formats) for options in wanted]
    rows = [
        _export(options, name, format)
        for options, name in zip(wanted, names, strict=True)
        for format in formats
    ]
    if args.json:
        write_whole(args.json, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print(table(rows))
    return EXIT_CHECK_FAILED if any(row.failure for row in rows) else EXIT_DONE


def _checked(options: Options, formats: Sequence[str]) -> str:
    """Returns the model's name after what no format could export has been refused.

    Raises:
        UserError: There are no such weights, or a file that would be written exists.
    """
    weights = take_weights(options)
    stem = options.name or weights.detector.name
    refuse_to_replace([format_named(format).path_in(options.out, stem) for format in formats], options.force)
    return weights.detector.name


def _export(options: Options, name: str, format: str) -> Row:
    """Runs one exporter, and tells of what it wrote or why it did not."""
    print(f"{name} to {format} ...", file=sys.stderr)
    began = time.perf_counter()
    try:
        exported = EXPORTERS[format](take_weights(options), options)
    except (UserError, CheckFailed) as error:
        return Row(name, format, time.perf_counter() - began, failure=_reason(error))
    except Exception as error:  # a converter's own failure must not take the other formats with it
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        return Row(name, format, time.perf_counter() - began, failure=_reason(reason))
    seconds = time.perf_counter() - began
    manifest, report = exported.manifest, lint(exported.path)
    assert manifest.file is not None
    assert manifest.parity is not None
    return Row(
        name,
        format,
        seconds,
        str(exported.path),
        manifest.file.bytes,
        len(report.graph.nodes),
        report.partitions,
        manifest.parity.max_difference,
    )


def _reason(error: object) -> str:
    return one_line(error)[:LONGEST_REASON]


def table(rows: Sequence[Row]) -> str:
    """Returns the rows with a header, columns aligned; a failure takes the rest of its line."""
    lines = [HEADER, *(row.cells() for row in rows)]
    whole = [line for line in lines if len(line) == len(HEADER)]
    named = [max(len(line[column]) for line in lines) for column in (0, 1)]
    widths = [*named, *(max(len(line[column]) for line in whole) for column in range(2, len(HEADER)))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < len(named) or len(line) < len(HEADER) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=False))
        ).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    run(main)
