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
import contextlib
import io
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, CheckFailed, UserError, one_line, run
from antispoof.formats import format_named
from antispoof.manifest import read_manifest
from antispoof.model_names import model_names
from antispoof.outputs import refuse_existing, write_whole
from antispoof.pretrained import DEFAULT_MODEL
from export import to_coreml, to_onnx, to_tflite
from export.lint import lint
from export.pipeline import add_arguments, take_weights

EXPORTERS: dict[str, Callable[[list[str]], int]] = {
    "onnx": to_onnx.main,
    "tflite": to_tflite.main,
    "coreml": to_coreml.main,
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
    names = [_checked(args, model) for model in models]
    rows = [
        _export(args, model, name, format)
        for model, name in zip(models, names, strict=True)
        for format in dict.fromkeys(args.format)
    ]
    if args.json:
        write_whole(args.json, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print(table(rows))
    return EXIT_CHECK_FAILED if any(row.failure for row in rows) else EXIT_DONE


def _checked(args: argparse.Namespace, model: str | None) -> str:
    """Returns the model's name after what no format could export has been refused.

    Raises:
        UserError: There are no such weights, or a file that would be written exists.
    """
    name = take_weights(argparse.Namespace(**{**vars(args), "model": model})).detector.name
    for format in args.format:
        target = _target(args, name, format)
        if target.exists() and not args.force:
            raise UserError(f"{target} exists; --force replaces it")
    return name


def _target(args: argparse.Namespace, name: str, format: str) -> Path:
    return format_named(format).path_in(args.out, args.name or name)


def _export(args: argparse.Namespace, model: str | None, name: str, format: str) -> Row:
    """Runs one exporter, and tells of what it wrote or why it did not."""
    print(f"{name} to {format} ...", file=sys.stderr)
    began = time.perf_counter()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            EXPORTERS[format](_flags(args, model))
    except (UserError, CheckFailed) as error:
        return Row(name, format, time.perf_counter() - began, failure=_reason(error))
    except Exception as error:  # a converter's own failure must not take the other formats with it
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        return Row(name, format, time.perf_counter() - began, failure=_reason(reason))
    seconds = time.perf_counter() - began
    path = _target(args, name, format)
    manifest, report = read_manifest(path), lint(path)
    assert manifest.file is not None
    assert manifest.parity is not None
    return Row(
        name,
        format,
        seconds,
        str(path),
        manifest.file.bytes,
        len(report.graph.nodes),
        report.partitions,
        manifest.parity.max_difference,
    )


def _flags(args: argparse.Namespace, model: str | None) -> list[str]:
    """Returns the flags for one exporter."""
    single = {
        "--model": model,
        "--checkpoint": args.checkpoint,
        "--out": args.out,
        "--name": args.name,
        "--wavlm": args.wavlm,
        "--verify-audio": args.verify_audio,
    }
    flags = [text for flag, value in single.items() if value is not None for text in (flag, str(value))]
    flags += [text for value in args.overrides for text in ("--set", value)]
    return [*flags, *(f"--{name}" for name in ("force", "bisect") if vars(args).get(name))]


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
