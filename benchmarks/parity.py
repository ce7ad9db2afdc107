"""Says whether model files may stand in for another: PASS, FAIL or UNDERPOWERED, and why.

    python benchmarks/parity.py out/aasist-l.onnx out/aasist-l.w8a8.onnx --audio clips --protocol list.tsv \
        --split dev --split test
    python benchmarks/parity.py weights.pth out/aasist-l.onnx --model aasist-l --audio LA/dev/flac \
        --protocol dev.trl.txt --asv-scores asv.dev.txt --faster

All score the same trials. A candidate passes if its EER is shown to be at most 0.3 percentage points
higher (--allowed-eer-difference): the upper end of the paired bootstrap interval is what counts. Where the
trials are too few to show that, the word is UNDERPOWERED, with how many would be needed. A candidate fails
too if its scores are inverted or do not correlate with the reference's, or if it was made from other weights.

Exit code 0 is PASS of every candidate and nothing else: UNDERPOWERED is exit 1 like FAIL, for what was not
shown is not known.
Scores are remembered in --cache, so a run that was interrupted goes on and a repeated one is quick.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from antispoof.bootstrap import DRAWS
from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, UserError, run
from antispoof.formats import format_of
from antispoof.manifest import describe_file
from antispoof.model_names import model_names
from antispoof.outputs import refuse_existing
from antispoof.protocols import LAYOUTS
from antispoof.tdcf import asv_errors, read_asv_scores
from benchmarks.gate import ALLOWED_EER_DIFFERENCE, LEAST_CORRELATION, Rule, Verdict, judge
from benchmarks.pooled_nodes import PooledNodes, compare_pooled_nodes
from benchmarks.results_file import gather_conditions, write_results
from benchmarks.timing.harness import judged, measure
from benchmarks.timing.ratios import SLOWER, ratio_interval, verdict
from benchmarks.timing.worker_handle import Artifact
from benchmarks.trial_scores import find_clips, score_clips
from runtimes import Runtime, load

KIND = "parity"
CACHE = Path("out/parity-cache")
SHOWN_FLIPS = 10
ROUNDS, ROUNDS_SECONDS, TIME_OUT = 30, 120.0, 300.0  # of --faster


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("reference", type=Path, metavar="REFERENCE", help="the model that is trusted")
    p.add_argument("candidates", nargs="+", type=Path, metavar="CANDIDATE", help="one that would replace it")
    p.add_argument("--audio", type=Path, required=True, metavar="DIR", help="folder of the trials' audio")
    p.add_argument("--protocol", type=Path, required=True, help="the list of trials with their labels")
    p.add_argument("--protocol-format", choices=LAYOUTS, help="default: recognised from its first line")
    p.add_argument("--split", action="append", default=[], metavar="NAME", help="only this; may be repeated")
    p.add_argument("--asv-scores", type=Path, help="speaker-verification scores, for the min t-DCF")
    p.add_argument(
        "--allowed-eer-difference",
        type=float,
        default=100 * ALLOWED_EER_DIFFERENCE,
        metavar="POINTS",
        help="percentage points that the EER may be higher (default 0.3)",
    )
    p.add_argument("--least-correlation", type=float, default=LEAST_CORRELATION, metavar="R")
    p.add_argument("--other-weights", action="store_true", help="allow them: candidates are students")
    p.add_argument("--faster", action="store_true", help="fail a candidate that is slower, too")
    p.add_argument("--pooled-nodes", action="store_true", help="compare which graph nodes are kept (ONNX)")
    p.add_argument("--model", choices=model_names(), help="which network, for checkpoints")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="threads of a run (default 1)")
    p.add_argument("--bootstrap", type=int, default=DRAWS, metavar="N", help=f"draws (default {DRAWS})")
    p.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    p.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"default {CACHE}")
    p.add_argument("--no-cache", action="store_true", help="score everything anew")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def open_model(path: Path, model: str | None, threads: int) -> Runtime:
    """Opens a model file; ``model`` is what a checkpoint holds."""
    is_checkpoint = path.exists() and format_of(path).name == "torch"
    return load(path, threads=threads, model=model if is_checkpoint else None)


@dataclass(frozen=True)
class Examined:
    """What was found of one candidate.

    Attributes:
        verdict: The word, and the figures behind it.
        speed: Its time as a multiple of the reference's, where it was asked for.
        pooled: Which graph nodes it keeps, where it was asked for.
    """

    verdict: Verdict
    speed: dict[str, Any] | None
    pooled: PooledNodes | None


def time_ratio(reference: Path, candidate: Path, model: str | None, threads: int) -> dict[str, Any]:
    """Returns a candidate's time as a multiple of the reference's, with its interval and the word for it.

    Raises:
        UserError: One of them cannot be timed.
    """
    artifacts = [
        Artifact(role, path, model if format_of(path).name == "torch" else None)
        for role, path in (("reference", reference), ("candidate", candidate))
    ]
    session = measure(artifacts, threads=threads, repeats=ROUNDS, seconds=ROUNDS_SECONDS, time_out=TIME_OUT)
    for one in session.measured:
        if one.failure is not None:
            raise UserError(f"{one.artifact.path} cannot be timed: {one.failure}")
    base, other = (judged(one.times, threads) for one in session.measured)
    interval = ratio_interval(other, base)
    return {**asdict(interval), "word": verdict(interval), "rounds": len(base), "threads": threads}


def table(examined: Examined) -> str:
    """Returns the figures as a short table, the word first."""
    verdict, speed, pooled = examined.verdict, examined.speed, examined.pooled
    total, difference, close = verdict.bonafide + verdict.spoof, verdict.difference, verdict.agreement
    rows = [(verdict.word, verdict.reasons[0]), *(("", reason) for reason in verdict.reasons[1:])]
    rows += [
        ("trials", f"{total:,} ({verdict.bonafide:,} bona fide, {verdict.spoof:,} spoof)"),
        ("EER", f"{verdict.reference_eer:.3%} reference, {verdict.candidate_eer:.3%} candidate"),
        ("difference", f"{difference.estimate:+.3%}, {difference.low:+.3%} to {difference.high:+.3%}"),
    ]
    if verdict.min_tdcf:
        rows.append(("min t-DCF", "{:.6f} reference, {:.6f} candidate".format(*verdict.min_tdcf)))
    rows += [
        ("correlation", f"{close.pearson:.6f} Pearson, {close.spearman:.6f} Spearman"),
        (
            "scores differ",
            f"{close.median_difference:.3g} median, {close.p95_difference:.3g} p95, "
            f"{close.max_difference:.3g} most",
        ),
        ("flipped", f"{len(verdict.flips)} at the reference's EER threshold {verdict.threshold:.4g}"),
    ]
    rows += [
        ("", f"{flip.name} ({flip.label}, {flip.attack}): {flip.reference:.3f} -> {flip.candidate:.3f}")
        for flip in verdict.flips[:SHOWN_FLIPS]
    ]
    if pooled:
        rows.append(
            ("kept nodes", f"other set in {pooled.other_set:.1%} of clips, order in {pooled.other_order:.1%}")
        )
    if speed:
        rows.append(
            (
                "time",
                f"{speed['estimate']:.3f} of the reference's ({speed['low']:.3f} to {speed['high']:.3f})",
            )
        )
    return "\n".join(f"{name:<14} {value}" for name, value in rows)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuses what would only fail after the scoring."""
    if args.bootstrap < 1 or args.seed < 0:
        raise UserError("--bootstrap takes at least 1, --seed at least 0")
    if not 0 < args.allowed_eer_difference <= 100:
        raise UserError("--allowed-eer-difference takes up to 100 and more than 0: no trials show equality")
    if not 0 <= args.least_correlation <= 1:
        raise UserError(f"--least-correlation takes 0 to 1, not {args.least_correlation:g}")
    if args.json:
        refuse_existing(args.json, args.force)


def row(path: Path, examined: Examined) -> dict[str, Any]:
    """Returns what goes into the results file of a candidate."""
    return {
        "file": asdict(describe_file(path)),
        **json.loads(json.dumps(asdict(examined.verdict))),
        "pooled_nodes": None if examined.pooled is None else asdict(examined.pooled),
        "time_ratio": examined.speed,
    }


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    check_arguments(args)
    rule = Rule(args.allowed_eer_difference / 100, args.least_correlation, args.bootstrap, args.seed)
    asv = None
    if args.asv_scores:
        scores = read_asv_scores(args.asv_scores)
        asv = asv_errors(scores["target"], scores["nontarget"], scores["spoof"])
    paths = (args.reference, *args.candidates)
    reference, *candidates = (open_model(path, args.model, args.threads) for path in paths)
    clips = find_clips(args.protocol, args.audio, format=args.protocol_format, splits=args.split)
    memory = None if args.no_cache else args.cache
    trusted = score_clips(reference, clips, memory)
    rows: list[dict[str, Any]] = []
    for path, candidate in zip(args.candidates, candidates, strict=True):
        result = judge(trusted, score_clips(candidate, clips, memory), clips.trials, rule, asv)
        weights = [reference.weights_sha256(), candidate.weights_sha256()]
        if None not in weights and weights[0] != weights[1] and not args.other_weights:
            result = result.failed("the candidate was made from other weights (a student: --other-weights)")
        pooled = compare_pooled_nodes(args.reference, path, clips) if args.pooled_nodes else None
        speed = time_ratio(args.reference, path, args.model, args.threads) if args.faster else None
        if speed and speed["word"] == SLOWER:
            result = result.failed(f"it takes {speed['estimate']:.2f} times the reference's time")
        examined = Examined(result, speed, pooled)
        if len(candidates) > 1:
            print(f"{path.name}:" if not rows else f"\n{path.name}:")
        print(table(examined), flush=True)
        rows.append(row(path, examined))
    if args.json:
        conditions = gather_conditions((args.threads,)) | {
            "reference": asdict(describe_file(args.reference)),
            "protocol": args.protocol.name,
            "splits": args.split,
            "allowed_eer_difference": rule.allowed,
            "least_correlation": rule.least_correlation,
            "other_weights": args.other_weights,
        }
        write_results(args.json, KIND, conditions, rows, args.force)
    return EXIT_DONE if all(row["word"] == "PASS" for row in rows) else EXIT_CHECK_FAILED


if __name__ == "__main__":
    run(main)
