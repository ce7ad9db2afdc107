"""Measures how detectors hear through codecs, noise, rooms, gains and cuts: EER and flipped decisions.

    python benchmarks/robustness.py out/aasist-l.onnx --audio clips --protocol list.tsv --split test
    python benchmarks/robustness.py out/a.onnx b=out/b.onnx --audio clips --protocol list.tsv \
        --conditions mp3-64k,g711,snr-10db --json robustness.json

ARTIFACT is a model file or NAME=FILE. Every trial is scored clean and in each condition (--list names them
all). The threshold is that of the artifact's own EER on clean audio; a decision is flipped where a trial lies
on its other side than when it was clean. The change of the EER has a paired bootstrap interval; that of the
share flipped is Wilson's (1927), which keeps a width where nothing flipped.

Scores are remembered in --cache by artifact, condition and seed, so an interrupted run goes on where it
stopped and a repeated one is quick. Lengths beyond that of the model change nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from antispoof.bootstrap import DRAWS, LEVEL, eer_difference, eer_interval
from antispoof.channel import codecs
from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.manifest import describe_file
from antispoof.metrics import decision_threshold, error_rates
from antispoof.model_names import model_names
from antispoof.outputs import refuse_existing
from antispoof.protocols import LAYOUTS
from benchmarks.degradations import CLEAN, Degradation, DegradedClips, degradations
from benchmarks.latency import parse_artifacts
from benchmarks.results_file import gather_conditions, write_results
from benchmarks.timing.worker_handle import Artifact
from benchmarks.trial_scores import Clips, find_clips, score_clips
from runtimes import Runtime, load

KIND = "robustness"
CACHE = Path("out/robustness-cache")

Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="robustness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("artifacts", nargs="*", metavar="ARTIFACT", help="a model file, or NAME=FILE")
    p.add_argument("--audio", type=Path, metavar="DIR", help="folder of the trials' audio")
    p.add_argument("--protocol", type=Path, help="the list of trials with their labels")
    p.add_argument("--protocol-format", choices=LAYOUTS, help="default: recognised from its first line")
    p.add_argument("--split", action="append", default=[], metavar="NAME", help="only this; may be repeated")
    p.add_argument("--conditions", metavar="NAME[,NAME...]", help="default: all that this machine can make")
    p.add_argument("--list", action="store_true", help="print the conditions and stop")
    p.add_argument("--model", choices=model_names(), help="which network, for checkpoints")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="threads of a run (default 1)")
    p.add_argument("--bootstrap", type=int, default=DRAWS, metavar="N", help=f"draws (default {DRAWS})")
    p.add_argument("--seed", type=int, default=0, help="of the channels and the bootstrap")
    p.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help=f"default {CACHE}")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def choose(names: str | None) -> list[Degradation]:
    """Returns the conditions of a list such as ``g711,snr-10db``, clean first; None means all there can be.

    Raises:
        UserError: One is unknown, or its codec is missing here.
    """
    known = degradations()
    missing = {name for name, one in known.items() if one.codec and one.codec not in codecs()}
    if names is None:
        if missing:
            print(
                f"left out, for this build of FFmpeg lacks them: {', '.join(sorted(missing))}",
                file=sys.stderr,
            )
        return [one for name, one in known.items() if name not in missing]
    wanted = dict.fromkeys([CLEAN, *names.split(",")])
    for name in wanted:
        if name not in known:
            raise UserError(f"no condition is called {name!r}; --list names them")
        if name in missing:
            raise UserError(f"this build of FFmpeg cannot encode for the condition {name!r}; leave it out")
    return [known[name] for name in wanted]


def wilson(hits: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Returns the interval of a share, by Wilson's score (1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, scale = hits / trials, 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def compare(
    clean: np.ndarray, heard: np.ndarray, is_bonafide: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> Row:
    """Returns what a channel did to a detector, ready for JSON. Rates are fractions.

    Args:
        clean: scores (trials,) of the trials as recorded.
        heard: scores (trials,) of the same trials through the channel.
        is_bonafide: (trials,) booleans.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        UserError: A class is missing, or the clean scores look inverted.
    """
    threshold = decision_threshold(clean[is_bonafide], clean[~is_bonafide])
    flipped = int(np.count_nonzero((clean >= threshold) != (heard >= threshold)))
    low, high = wilson(flipped, len(clean))
    options: dict[str, Any] = {"draws": draws, "seed": seed}
    return {
        "eer": asdict(eer_interval(heard[is_bonafide], heard[~is_bonafide], **options)),
        "eer_change": asdict(eer_difference(heard, clean, is_bonafide, **options)),
        "threshold": threshold,
        "flipped": {"estimate": flipped / len(clean), "low": low, "high": high, "trials": flipped},
        **asdict(error_rates(heard[is_bonafide], heard[~is_bonafide], threshold)),
        "mean_score_change": float(np.mean(heard - clean)),
    }


def scores_in(runtime: Runtime, clips: Clips, one: Degradation, seed: int, cache: Path) -> np.ndarray:
    """Returns the scores (trials,) of the clips in a condition, from ``cache`` as far as they are there."""
    degraded = DegradedClips(clips.trials, clips.files, one, seed)
    return score_clips(runtime, degraded, cache / f"{one.name}-{one.fingerprint(seed)}")


def measure(
    artifact: Artifact,
    clips: Clips,
    chosen: list[Degradation],
    cache: Path,
    *,
    threads: int = 1,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Row]:
    """Returns one row for each condition of an artifact, the clean one first.

    Args:
        artifact: The file.
        clips: The trials.
        chosen: The conditions, the clean one first.
        cache: The folder of scores that were computed before.
        threads: How many one run may use.
        draws: Of the bootstrap.
        seed: Of the channels and the bootstrap.
    """
    runtime = load(artifact.path, threads=threads, model=artifact.model)
    file = describe_file(artifact.path)
    rows: list[Row] = []
    clean = np.empty(0)
    for number, one in enumerate(chosen, start=1):
        print(f"{artifact.label}: {one.name} ({number} of {len(chosen)})", file=sys.stderr)
        heard = scores_in(runtime, clips, one, seed, cache)
        if one.name == CLEAN:
            clean = heard
        figures = compare(clean, heard, clips.is_bonafide, draws=draws, seed=seed)
        names = {"label": artifact.label, "file": asdict(file), "condition": one.name, "about": one.about}
        rows.append({**names, **figures})
    return rows


def table(rows: list[Row]) -> str:
    """Returns the matrix as text, one block for each artifact."""
    width = max(len(row[key]) for row in rows for key in ("condition", "label"))
    lines: list[str] = []
    for label in dict.fromkeys(row["label"] for row in rows):
        head = ("EER", "change", "95 % interval", "flipped", "miss", "false alarm")
        lines += ["", f"{label:<{width}}" + "{:>9}{:>9}{:>20}{:>9}{:>9}{:>13}".format(*head)]
        for row in rows:
            if row["label"] != label:
                continue
            change = row["eer_change"]
            span = f"{change['low']:+.2%} to {change['high']:+.2%}"
            lines.append(
                f"{row['condition']:<{width}}{row['eer']['estimate']:>9.2%}{change['estimate']:>+9.2%}"
                f"{span:>20}{row['flipped']['estimate']:>9.1%}{row['miss']:>9.1%}{row['false_alarm']:>13.1%}"
            )
    return "\n".join(lines[1:])


def circumstances(args: argparse.Namespace, clips: Clips) -> Row:
    """Returns what the figures depend on beside the artifacts, for the results file."""
    labels = [trial.label for trial in clips.trials]
    return gather_conditions((args.threads,)) | {
        "protocol": {"name": args.protocol.name, "sha256": describe_file(args.protocol).sha256},
        "splits": args.split,
        "trials": {label: labels.count(label) for label in sorted(set(labels))},
        "seed": args.seed,
        "channel": {name: importlib.metadata.version(name) for name in ("av", "soxr")},
    }


def check_arguments(args: argparse.Namespace) -> None:
    """Refuses what would only fail after the scoring."""
    if not args.artifacts or args.audio is None or args.protocol is None:
        raise UserError("name an ARTIFACT, its --audio and its --protocol (--list prints the conditions)")
    if args.bootstrap < 1 or args.seed < 0:
        raise UserError("--bootstrap takes at least 1, --seed at least 0")
    if args.json:
        refuse_existing(args.json, args.force)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.list:
        print("\n".join(f"{one.name:<12} {one.about}" for one in degradations().values()))
        return EXIT_DONE
    check_arguments(args)
    artifacts = parse_artifacts(args.artifacts, args.model)
    clips = find_clips(args.protocol, args.audio, format=args.protocol_format, splits=args.split)
    chosen = choose(args.conditions)
    settings = {"threads": args.threads, "draws": args.bootstrap, "seed": args.seed}
    rows = [row for one in artifacts for row in measure(one, clips, chosen, args.cache, **settings)]
    if args.json:
        write_results(args.json, KIND, circumstances(args, clips), rows, args.force)
    print(table(rows))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
