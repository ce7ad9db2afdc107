"""Measures what quantization costs and saves: quantized files against their own float32, on labelled clips.

    python benchmarks/quantized.py out/aasist-l.onnx out/aasist-l.w8a8.onnx out/aasist-l.f16.onnx \
        --audio clips --protocol clips/manifest.tsv --split dev --split test --json OUT

Files of any format: ONNX, TFLite or Core ML, the last without times where there is no Mac. For each: size,
time as a share of the float file's, how far its scores are from the float ones, the EER's difference with its
paired bootstrap interval, decisions that flip at the float file's EER threshold, and, of ONNX files, in how
many clips other graph nodes are kept. Of random weights an EER means nothing, so they get none. Nor do their
scores differ much between clips, so that the same error correlates less: how much they do stands in OUT.

Scores are remembered in --cache, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.formats import format_of
from antispoof.manifest import check_file, describe_file
from antispoof.manifest_reader import read_manifest
from antispoof.outputs import refuse_existing
from benchmarks.gate import agreement, judge
from benchmarks.parity import CACHE, TIME_OUT
from benchmarks.pooled_nodes import NodeReader, Nodes, compare_nodes
from benchmarks.results_file import gather_conditions, load_average, write_results
from benchmarks.score_memory import Lines, remembered
from benchmarks.timing.harness import measure
from benchmarks.timing.latency_rows import comparison
from benchmarks.timing.worker_handle import Artifact
from benchmarks.trial_scores import Clips, find_clips, memory_key
from runtimes import load
from runtimes.mlpackage import FORMAT as COREML
from runtimes.mlpackage import has_core_ml

KIND = "quantized"
ROUNDS, SECONDS = 60, 240.0

Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="quantized.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("source", type=Path, metavar="FLOAT", help="the float32 file")
    p.add_argument("files", type=Path, nargs="+", metavar="FILE", help="what was made of it")
    p.add_argument("--audio", type=Path, required=True, metavar="DIR", help="folder of the trials' audio")
    p.add_argument("--protocol", type=Path, required=True, help="the list of trials with their labels")
    p.add_argument("--split", action="append", default=[], metavar="NAME", help="only this; may be repeated")
    p.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"of timing (default {ROUNDS})")
    p.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"default {CACHE}")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


@dataclass(frozen=True)
class Outcome:
    """What a file makes of the clips: scores ``(clips,)``, and the nodes that it keeps."""

    scores: np.ndarray
    nodes: list[Nodes]


def run_file(path: Path, clips: Clips, memory: Path) -> Outcome:
    """Returns what a file makes of the clips, from ``memory`` (a folder) as far as it is known there.

    Raises:
        UserError: The file cannot be run, a clip cannot be read, or the memory is damaged.
    """
    reader = NodeReader(path) if format_of(path).name == "onnx" else ScoreReader(path)

    def read(places: Sequence[int]) -> list[tuple[float, Nodes]]:
        return [reader.read(clips, place) for place in places]

    names = [trial.name for trial in clips.trials]
    outcomes = remembered(memory, memory_key(path, clips), names, read, WITH_NODES, title=path.name)
    return Outcome(np.array([score for score, _ in outcomes]), [nodes for _, nodes in outcomes])


def _outcome_of(line: str) -> tuple[str, tuple[float, Nodes]]:
    name, score, nodes = json.loads(line)
    return name, (float(score), nodes)


WITH_NODES = Lines(".nodes.jsonl", lambda name, outcome: json.dumps([name, *outcome]), _outcome_of)


class ScoreReader:
    """A file of which only the scores can be read, and not which nodes it keeps."""

    def __init__(self, path: Path) -> None:
        self.runtime = load(path)

    def read(self, clips: Clips, index: int) -> tuple[float, Nodes]:
        """Returns a clip's score, and no nodes."""
        return float(self.runtime.score(clips.waveform(index, self.runtime.input.samples))[0]), []


def score_row(source: Outcome, path: Path, clips: Clips, memory: Path) -> Row:
    """Returns everything about a file but its time."""
    manifest = read_manifest(path)
    found = run_file(path, clips, memory)
    row: Row = {
        "label": manifest.recipe,
        "precision": manifest.precision,
        **asdict(describe_file(path)),
        "agreement": asdict(agreement(source.scores, found.scores)),
        "pooled_nodes": asdict(compare_nodes(source.nodes, found.nodes)) if source.nodes[0] else None,
    }
    if not manifest.untrained:
        verdict = judge(source.scores, found.scores, clips.trials)
        row |= {
            "reference_eer": verdict.reference_eer,
            "eer_difference": asdict(verdict.difference),
            "flipped": len(verdict.flips),
            "parity": verdict.word,
            "reasons": list(verdict.reasons),
        }
    return row


def check_origin(source: Path, files: list[Path]) -> None:
    """Refuses files without a manifest of their own, and files that were made of other weights.

    Raises:
        UserError: There is one.
    """
    first = read_manifest(source)
    if first.precision != "float32":
        raise UserError(f"{source} holds {first.precision}; the first file is the float32 one, FLOAT")
    weights = first.weights_sha256
    for path in (source, *files):
        manifest = read_manifest(path)
        check_file(manifest, path)
        if manifest.weights_sha256 != weights:
            raise UserError(f"{path} was made of other weights than {source}")


def time_rows(source: Path, files: list[Path], rounds: int) -> list[Row]:
    """Returns the time of each file as a multiple of the float file's; nothing of what is only evaluated.

    Raises:
        UserError: One cannot be timed.
    """
    if format_of(source).name == COREML and not has_core_ml():
        return [{} for _ in files]
    artifacts = [Artifact(path.stem, path, None) for path in (source, *files)]
    session = measure(artifacts, threads=1, repeats=rounds, seconds=SECONDS, time_out=TIME_OUT)
    for one in session.measured:
        if one.failure is not None:
            raise UserError(f"{one.artifact.path} cannot be timed: {one.failure}")
    base, *others = session.measured
    return [
        {**comparison(one, base, 1), "median_cpu_ms": 1e3 * float(np.median([cpu for _, cpu in one.times]))}
        for one in others
    ]


def line(row: Row) -> str:
    """Returns a row as text."""
    close = row["agreement"]
    time = f"{row['ratio']['cpu']['estimate']:.3f} of the time" if "ratio" in row else "not timed"
    text = (
        f"{row['label']:<24} {row['bytes'] / 1024:7.1f} KiB  {time}  "
        f"{close['median_difference']:.3f} median {close['p95_difference']:.3f} p95 "
        f"{close['max_difference']:.3f} most  {close['pearson']:.4f} Pearson"
    )
    if "eer_difference" in row:
        eer = row["eer_difference"]
        text += "  EER {estimate:+.2%} ({low:+.2%} to {high:+.2%})".format(**eer)
        text += f", {row['flipped']} flipped"
    if row["pooled_nodes"]:
        text += f", other nodes in {row['pooled_nodes']['other_set']:.0%}"
    return text


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.rounds < 1:
        raise UserError("--rounds takes at least 1")
    if args.json:
        refuse_existing(args.json, args.force)
    check_origin(args.source, args.files)
    clips = find_clips(args.protocol, args.audio, format=None, splits=args.split)
    conditions = gather_conditions()
    outcome = run_file(args.source, clips, args.cache)
    rows = [score_row(outcome, path, clips, args.cache) for path in args.files]
    rows = [
        {**row, **time}
        for row, time in zip(rows, time_rows(args.source, args.files, args.rounds), strict=True)
    ]
    source = read_manifest(args.source)
    conditions |= {
        "load_average_after": load_average(),
        "source": {
            "model": source.model,
            "weights": source.weights,
            "weights_sha256": source.weights_sha256,
            **asdict(describe_file(args.source)),
        },
        "protocol": args.protocol.name,
        "splits": args.split,
        "clips": len(clips.trials),
        "score_deviation": float(np.std(outcome.scores)),
        "rounds": args.rounds,
    }
    if args.json:
        write_results(args.json, KIND, conditions, rows, args.force)
    print("\n".join(map(line, rows)))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
