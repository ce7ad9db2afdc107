"""Times model files on this machine, side by side, and says which is faster.

    python benchmarks/latency.py out/aasist-l.onnx
    python benchmarks/latency.py ours=out/aasist-l.onnx theirs=peer.onnx eager=aasist-l.safetensors --json OUT
    python benchmarks/latency.py out/a.onnx out/b.onnx --threads 1,2 --against earlier.json

ARTIFACT is an exported file with its manifest, a PyTorch checkpoint (timed in eager mode), or an ONNX
file without manifest; NAME=ARTIFACT sets its name in the table. Each runs in a process of its own, with
a speech-like clip, and they take turns. The first is the base that the others are compared with: the
ratio is the median over rounds of their times' ratio, with its 95 % bootstrap interval. It counts as a
difference where the whole interval is more than 3 % away from 1.

With one thread, times are of the processor, which other programs disturb least; with more, by the clock.
Both are in the JSON. Memory is what the process grew by, over what it needed with its library imported:
to hold the model, and at the highest while it ran. Exit code 1 where an artifact could not be timed.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path

from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, UserError, run
from antispoof.formats import format_of
from antispoof.model_names import model_names
from antispoof.outputs import refuse_existing
from benchmarks.results_file import gather_conditions, load_average, read_results, reading, write_results
from benchmarks.timing.harness import WARM_UP_MOST, WARM_UP_TOLERANCE, WARM_UP_WINDOW, measure
from benchmarks.timing.latency_rows import Row, add_changes, comparable, rows_of, table
from benchmarks.timing.ratios import MIN_EFFECT
from benchmarks.timing.worker_handle import Artifact

KIND = "latency"
HOP_SECONDS = 0.5  # a phone scores its last clip again so often


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    p = argparse.ArgumentParser(
        prog="latency.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("artifacts", nargs="+", metavar="ARTIFACT", help="a model file, or NAME=FILE")
    p.add_argument("--threads", default="1", metavar="N[,N...]", help="threads per run (default 1)")
    p.add_argument("--repeats", type=int, default=200, metavar="N", help="measured rounds (default 200)")
    p.add_argument(
        "--seconds",
        type=float,
        default=300,
        metavar="S",
        help="begin no further round after so long (default 300)",
    )
    p.add_argument(
        "--hop", type=float, default=HOP_SECONDS, metavar="S", help="new audio per run (default 0.5 s)"
    )
    p.add_argument(
        "--time-out", type=float, default=300, metavar="S", help="a run is hung after so long (default 300)"
    )
    p.add_argument("--model", choices=model_names(), help="which network the checkpoints hold")
    p.add_argument(
        "--against", type=Path, metavar="FILE", help="compare the ratios with those of earlier results"
    )
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def parse_artifacts(texts: list[str], model: str | None) -> list[Artifact]:
    """Returns the artifacts that the arguments name.

    Raises:
        UserError: One is missing or of no known format, two have the same name, or there is no
            checkpoint that ``model`` could be about.
    """
    named = [re.fullmatch(r"([\w.+-]+)=(.+)", text) for text in texts]
    given = [
        (match[1], Path(match[2])) if match else ("", Path(text))
        for text, match in zip(texts, named, strict=True)
    ]
    stems = [path.stem for name, path in given if not name]
    artifacts = []
    for name, path in given:
        if not path.exists():
            raise UserError(f"{path}: no such model file")
        is_checkpoint = format_of(path).name == "torch"
        label = name or (path.stem if stems.count(path.stem) == 1 else path.name)
        artifacts.append(Artifact(label, path, model if is_checkpoint else None))
    labels = [artifact.label for artifact in artifacts]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"two artifacts are called {label!r}; tell them apart with NAME=FILE")
    if model and not any(artifact.model for artifact in artifacts):
        raise UserError("--model is for checkpoints, and none of the artifacts is one")
    return artifacts


def parse_threads(text: str) -> list[int]:
    """Returns the thread counts of a list such as ``1,2,4``."""
    if not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*", text):
        raise UserError(f"--threads takes numbers from 1, such as 1,2,4, not {text!r}")
    return list(dict.fromkeys(map(int, text.split(","))))


def protocol(args: argparse.Namespace) -> Row:
    """Returns the settings that the figures depend on, for the results file."""
    return {
        "repeats": args.repeats,
        "seconds": args.seconds,
        "hop_s": args.hop,
        "warm_up": {"window": WARM_UP_WINDOW, "tolerance": WARM_UP_TOLERANCE, "most": WARM_UP_MOST},
        "input": "speech-like clips, generated",
        "smallest_effect": MIN_EFFECT,
    }


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    artifacts, threads = parse_artifacts(args.artifacts, args.model), parse_threads(args.threads)
    for flag in ("repeats", "seconds", "hop", "time_out"):
        if not 0 < getattr(args, flag) < math.inf:
            raise UserError(f"--{flag.replace('_', '-')} takes a finite number above 0")
    if args.json:
        refuse_existing(args.json, args.force)
    then, cpu_then = {}, None
    if args.against:
        earlier = read_results(args.against, KIND)
        with reading(args.against):  # all of it now, and not after the measurement
            then, cpu_then = (
                comparable(earlier, artifacts, threads, args.against.name),
                earlier["conditions"]["cpu"],
            )
    conditions = gather_conditions(threads)
    if max(threads) > conditions["cpu"]["usable_cores"]:
        print(f"note: {max(threads)} threads on {conditions['cpu']['usable_cores']} cores", file=sys.stderr)
    rows: list[Row] = []
    for count in threads:
        session = measure(
            artifacts, threads=count, repeats=args.repeats, seconds=args.seconds, time_out=args.time_out
        )
        rows += rows_of(session, args.hop)
    if then:
        add_changes(rows, then, args.against.name, same_cpu=cpu_then == conditions["cpu"])
    if args.json:
        conditions |= {"load_average_after": load_average(), "protocol": protocol(args)}
        write_results(args.json, KIND, conditions, rows, args.force)
    print(table(rows))
    return EXIT_CHECK_FAILED if any("failed" in row for row in rows) else EXIT_DONE


if __name__ == "__main__":
    run(main)
