"""Measures what a model in two halves saves in a stream, and what its scores lose: beside the whole model.

    python benchmarks/streaming.py out/fscnn.onnx out/fscnn.cached.json \
        --audio clips --protocol clips/manifest.tsv --split dev --split test --json OUT

Cost: processor time of windows half a second apart (--hop), the whole model and both ways of the halves in
turn, each in a process of its own; once --windows of them in a row, as a recording is scored, and once one
at a time, as a microphone's are: then caches hold what ran in between, and loading weighs most.

Scores: every clip follows the one before it in the list, as in a conversation, and is repeated to its end.
What counts is the first window that holds nothing but the clip and nothing computed for a window before it
began: how far its score is from the whole model's, the EER's difference with its paired bootstrap interval,
and the decisions that flip at the whole model's EER threshold.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from antispoof.audio import SAMPLE_RATE, fit_length, load_audio
from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.manifest import describe_file
from antispoof.manifest_reader import read_manifest
from antispoof.outputs import refuse_existing
from benchmarks.gate import agreement, judge
from benchmarks.parity import TIME_OUT
from benchmarks.results_file import gather_conditions, load_average, write_results
from benchmarks.timing.harness import Measured, measure
from benchmarks.timing.latency_rows import comparison
from benchmarks.timing.worker_handle import Artifact, Following
from benchmarks.trial_scores import Clips, find_clips
from runtimes import load
from runtimes.cached import SUFFIX, CachedDetector, nearest_hop, open_cached, read_cached

KIND = "streaming"
HOP_SECONDS, WINDOWS, ROUNDS, SECONDS = 0.5, 16, 60, 240.0

Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="streaming.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("whole", type=Path, metavar="FILE", help="the whole model, exported to ONNX")
    p.add_argument("halves", type=Path, metavar="HALVES", help=f"its *{SUFFIX}, of export/to_onnx_cached.py")
    p.add_argument("--audio", type=Path, required=True, metavar="DIR", help="folder of the trials' audio")
    p.add_argument("--protocol", type=Path, required=True, help="the list of trials with their labels")
    p.add_argument("--split", action="append", default=[], metavar="NAME", help="only this; may be repeated")
    p.add_argument("--hop", type=float, default=HOP_SECONDS, metavar="SECONDS", help="default 0.5")
    p.add_argument("--windows", type=int, default=WINDOWS, metavar="N", help=f"in a row (default {WINDOWS})")
    p.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"of timing (default {ROUNDS})")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def stream_scores(cached: CachedDetector, whole: Any, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores ``(clips,)`` of the last window of each clip's stream, in halves and whole."""
    samples = cached.geometry.samples
    hops = -(-samples // cached.hop)
    before = fit_length(load_audio(clips.files[-1]), samples)
    kept, expected = [], []
    for file in tqdm(clips.files, unit="clip", disable=None):
        clip = load_audio(file)
        audio = np.concatenate([before, fit_length(clip, hops * cached.hop)])
        windows = [audio[n * cached.hop :][:samples] for n in range(hops + 1)]
        kept.append([cached.score(window, follows=n > 0) for n, window in enumerate(windows)][-1])
        expected.append(float(whole.score(np.ascontiguousarray(windows[-1][None]))[0]))
        before = fit_length(clip, samples)
    return np.array(kept), np.array(expected)


def score_row(path: Path, whole: Path, clips: Clips, hop_seconds: float, *, exact: bool) -> Row:
    """Returns everything about one way of the halves but its time."""
    files, cached = open_cached(path, nearest_hop(path, hop_seconds, exact=exact), exact=exact)
    found, expected = stream_scores(cached, load(whole), clips)
    verdict = judge(expected, found, clips.trials)
    halves = files.halves(exact=exact)
    return {
        "label": "exact" if exact else "fast",
        "bytes": halves.encoder.bytes + halves.back_end.bytes,
        "hop_samples": cached.hop,
        "hop_share": cached.hop / halves.geometry.samples,
        "encoded_share": halves.geometry.computed(cached.hop_columns) / halves.geometry.samples,
        "agreement": asdict(agreement(expected, found)),
        "reference_eer": verdict.reference_eer,
        "eer_difference": asdict(verdict.difference),
        "flipped": len(verdict.flips),
    }


def time_rows(whole: Path, halves: Path, hop_seconds: float, windows: int, rounds: int) -> list[Row]:
    """Returns the cost of a window, whole, exact and fast, when so many are scored in a row.

    Raises:
        UserError: One cannot be timed.
    """
    ways = (("whole", whole, False), ("exact", halves, False), ("fast", halves, True))
    artifacts = [
        Artifact(label, path, following=Following(windows, hop_seconds, fast)) for label, path, fast in ways
    ]
    session = measure(artifacts, threads=1, repeats=rounds, seconds=SECONDS, time_out=TIME_OUT)
    for one in session.measured:
        if one.failure is not None:
            raise UserError(f"{one.artifact.path} cannot be timed: {one.failure}")
    base, *others = session.measured
    return [_cost(base, windows), *({**_cost(one, windows), **comparison(one, base, 1)} for one in others)]


def _cost(one: Measured, windows: int) -> Row:
    times = [1e3 * cpu / windows for _, cpu in one.times]
    return {"cpu_ms": float(np.median(times)), "rounds": len(times), "steady": one.steady}


def line(row: Row) -> str:
    """Returns a row as text."""
    times = [row["time"][name] for name in ("row", "single")]
    shares = ", ".join(f"{time['ratio']['cpu']['estimate']:.1%}" for time in times)
    close, eer = row["agreement"], row["eer_difference"]
    return (
        f"{row['label']:<6} hop {row['hop_share']:.1%} of a window, cost {shares} (in a row, one at a time)  "
        f"score differs {close['median_difference']:.2g} median {close['p95_difference']:.2g} p95 "
        f"{close['max_difference']:.2g} most  "
        + "EER {estimate:+.2%} ({low:+.2%} to {high:+.2%})".format(**eer)
        + f", {row['flipped']} flipped"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.windows < 1 or args.rounds < 1 or not 0 < args.hop <= 3600:
        raise UserError("--windows and --rounds take at least 1, --hop up to 3600 s and above 0")
    if args.json:
        refuse_existing(args.json, args.force)
    manifest, source = read_cached(args.halves).manifest, read_manifest(args.whole)
    if manifest.weights_sha256 != source.weights_sha256:
        raise UserError(f"{args.halves} was made of other weights than {args.whole}")
    clips = find_clips(args.protocol, args.audio, format=None, splits=args.split)
    conditions = gather_conditions()
    timed = {
        name: time_rows(args.whole, args.halves, args.hop, windows, args.rounds)
        for name, windows in (("row", args.windows), ("single", 1))
    }
    rows = [score_row(args.halves, args.whole, clips, args.hop, exact=exact) for exact in (True, False)]
    for index, row in enumerate(rows, 1):
        row["time"] = {name: times[index] for name, times in timed.items()}
    conditions |= {
        "load_average_after": load_average(),
        "source": {"model": source.model, "weights": source.weights, **asdict(describe_file(args.whole))},
        "whole_cpu_ms": {name: times[0]["cpu_ms"] for name, times in timed.items()},
        "protocol": args.protocol.name,
        "splits": args.split,
        "clips": len(clips.trials),
        "hop_s": args.hop,
        "windows": args.windows,
        "window_s": source.input.samples / SAMPLE_RATE,
    }
    if args.json:
        write_results(args.json, KIND, conditions, rows, args.force)
    print("\n".join(map(line, rows)))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
