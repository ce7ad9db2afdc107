"""Examines a Core ML package without a Mac: golden scores, half precision, ranges, differences.

    python runtimes/mil.py out/fscnn.mlpackage                          # golden scores
    python runtimes/mil.py out/fscnn.mlpackage --precision float16      # where half precision goes wrong
    python runtimes/mil.py out/fscnn.mlpackage --ranges --audio clips/  # what half precision cannot hold
    python runtimes/mil.py broken.mlpackage --against out/fscnn.mlpackage

Runs the written files on PyTorch's kernels, one operation of the ML Program after the other. Exit code
1 where a score, a range or a value is not what it should be.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, CheckFailed, UserError, run
from antispoof.manifest import Manifest, check_file
from antispoof.manifest_reader import read_manifest
from antispoof.speechlike import speech_like_batch
from runtimes.activations import LARGEST_HALF, SMALLEST_NORMAL_HALF, activation_spans
from runtimes.clips import spread_heads
from runtimes.golden import check_golden, golden_paths
from runtimes.graphs import read_graph
from runtimes.ml_program.departure import first_departure
from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.package import read_package
from runtimes.ml_program.runtime import MilRuntime

CLIPS = 4
TOLERANCE = 0.05  # rounding alone stays below it in all models here; what leaves it has gone wrong
WIDEST = 10  # rows of the table of ranges


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mil.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, metavar="FILE.mlpackage")
    parser.add_argument("--audio", type=Path, metavar="DIR", help="clips to run (default: generated ones)")
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"how many of them (default {CLIPS})")
    parser.add_argument("--threads", type=int, default=1, help="threads (default 1)")
    parser.add_argument(
        "--precision",
        choices=["float16"],
        help="name the first operation that goes astray if all of it were in half precision",
    )
    parser.add_argument(
        "--against", type=Path, metavar="OTHER.mlpackage", help="name the first operation that differs"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"share of its largest value by which an operation may be off (default {TOLERANCE})",
    )
    parser.add_argument("--ranges", action="store_true", help="list the tensors with the largest values")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    args = build_parser().parse_args(argv)
    if args.clips < 1 or args.threads < 1:
        raise UserError("--clips and --threads take at least 1")
    if not 0 <= args.tolerance < math.inf:
        raise UserError(f"--tolerance takes 0 or more, not {args.tolerance:g}")
    runtime = open_checked(args.package, args.threads)
    program = runtime.evaluator.program
    steps = len(runtime.evaluator.steps)
    print(f"program    {steps} operations, {program.opset}, specification {program.specification}")
    problems = [golden_problem(runtime)]
    clips = take_clips(args.audio, args.clips, runtime.input.samples)
    if args.precision:
        half = Evaluator(program, "float16")
        problems.append(departure(runtime.evaluator, half, clips, args.tolerance, "float16"))
    if args.against:
        other = Evaluator(read_package(args.against))
        problems.append(departure(other, runtime.evaluator, clips, args.tolerance, "against"))
    if args.ranges:
        problems.append(print_ranges(args.package, clips))
    return EXIT_CHECK_FAILED if any(problems) else EXIT_DONE


def open_checked(path: Path, threads: int) -> MilRuntime:
    """Opens a package with the evaluator, on a Mac too.

    Raises:
        UserError: It is missing, damaged or not what its manifest was written for.
    """
    if not path.exists():
        raise UserError(f"{path}: no such package")
    manifest: Manifest = read_manifest(path)
    check_file(manifest, path)
    return MilRuntime(path, manifest, threads=threads)


def golden_problem(runtime: MilRuntime) -> bool:
    """Prints how the golden clips score, if there are any; returns whether one is wrong."""
    if not golden_paths(runtime.path)[0].exists():
        print("golden     none beside the package")
        return False
    try:
        print(f"golden     {check_golden(runtime):.1e} at most from PyTorch's scores")
    except CheckFailed as error:
        print(f"golden     WRONG: {error}")
        return True
    return False


def departure(
    reference: Evaluator, candidate: Evaluator, clips: np.ndarray, tolerance: float, name: str
) -> bool:
    """Prints where the candidate leaves the reference; returns whether it does."""
    found = first_departure(reference, candidate, clips, tolerance)
    print(f"{name:<10} {found or f'no operation is off by more than {tolerance:g} of its largest value'}")
    return found is not None


def print_ranges(package: Path, clips: np.ndarray) -> bool:
    """Prints the tensors with the largest values and those with tiny ones; returns whether one overflows."""
    graph = read_graph(package)
    spans = activation_spans(package, graph, clips)
    overflowing = [span for span in spans if span.overflows]
    largest = sorted(spans, key=lambda span: -max(-span.low, span.high))[:WIDEST]
    for span in overflowing or largest:
        mark, value = "OVERFLOWS " if span.overflows else "range     ", graph.values[span.name]
        what = f"{span.kind} {span.name!r}, {value.dtype}{list(value.shape or ())}"
        print(f"{mark} {span.low:.4g} to {span.high:.4g}  {what}")
    tiny = sum(span.tiny > 0.5 for span in spans)
    print(
        f"half       {len(overflowing)} of {len(spans)} tensors go beyond {LARGEST_HALF:g}; "
        f"{tiny} are mostly below {SMALLEST_NORMAL_HALF:.1e}"
    )
    return bool(overflowing)


def take_clips(folder: Path | None, count: int, samples: int) -> np.ndarray:
    """Returns clips ``(clips, samples)`` spread over a folder, or generated ones.

    Raises:
        UserError: There is no audio below the folder.
    """
    if folder is None:
        return speech_like_batch(count, samples)
    return spread_heads(folder, count, samples)


if __name__ == "__main__":
    run(main)
