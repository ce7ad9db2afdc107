"""Measures one model from end to end, and says which file of it to ship on which target, and why.

    antispoof bench aasist-l
    antispoof bench my.pth --model aasist-l --audio clips --protocol list.tsv --split test
    antispoof bench my.pth --audio clips --protocol list.tsv --against out/bench/last-week --out out/bench/now

MODEL is a checkpoint, or a model's name for its bundled weights. Every file is made (ONNX, ONNX in tiles,
INT8, TFLite, Core ML), checked, timed in turns with PyTorch and, where --protocol and --audio give labelled
trials, scored: the EER of each, whether parity.py's rule lets it stand in for PyTorch, and what channels
do. INT8 that was not scored on labelled trials is never recommended. Ends in a verdict; OUT holds the files,
bench.json and bench.html. Takes minutes; --seconds, --trials and --skip make it shorter.

--against takes the OUT of an earlier bench: its files run in the same rounds and score the same trials, and
what got worse by more than the noise is named. Exit code 1 where something did, or where a file failed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, UserError, run
from antispoof.formats import format_of
from antispoof.manifest import describe_file
from antispoof.model_names import model_names
from antispoof.outputs import make_folder
from antispoof.pretrained import DEFAULT_MODEL, load_pretrained
from antispoof.protocols import LAYOUTS
from benchmarks import robustness
from benchmarks.bench_accuracy import (
    OLD,
    REFERENCE,
    Accuracy,
    accuracies,
    degraded,
    say,
    systems_of,
)
from benchmarks.bench_files import PRODUCTS, Origin, make_file, path_of
from benchmarks.latency import HOP_SECONDS
from benchmarks.pages.page import page, write_page
from benchmarks.pages.result_tables import RENDERERS
from benchmarks.pages.score_charts import System
from benchmarks.results_file import gather_conditions, load_average, write_results
from benchmarks.shipping import (
    UNTIMED,
    Candidate,
    Change,
    Scores,
    compare,
    regression_lines,
    sentences,
)
from benchmarks.timing.harness import Session, judged, measure
from benchmarks.timing.isolated import StepFailed, isolated
from benchmarks.timing.latency_rows import rows_of, table
from benchmarks.timing.worker_handle import Artifact
from benchmarks.trial_scores import Clips, find_clips

KIND = "bench"
STEP_SECONDS = 3600.0
TIME_OUT = 300.0

Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("subject", metavar="MODEL", help="a checkpoint, or a model's name")
    p.add_argument("--model", choices=model_names(), help="which network, for a checkpoint")
    p.add_argument("--checkpoint", metavar="FILE", help="weights for a name: a file, official, qat or random")
    p.add_argument("--audio", type=Path, metavar="DIR", help="folder of the trials' audio")
    p.add_argument("--protocol", type=Path, help="the list of trials with their labels")
    p.add_argument("--protocol-format", choices=LAYOUTS, help="default: recognised from its first line")
    p.add_argument("--split", action="append", default=[], metavar="NAME", help="only this; may be repeated")
    p.add_argument("--trials", type=int, default=200, metavar="N", help="score at most so many (default 200)")
    p.add_argument("--calibration-audio", type=Path, metavar="DIR", help="recordings for INT8's ranges")
    p.add_argument("--skip", action="append", default=[], choices=sorted(PRODUCTS), help="may be repeated")
    p.add_argument("--repeats", type=int, default=100, metavar="N", help="measured rounds (default 100)")
    p.add_argument("--seconds", type=float, default=120, metavar="S", help="no further round (default 120)")
    p.add_argument("--against", type=Path, metavar="OUT", help="the folder of an earlier bench")
    p.add_argument("--out", type=Path, default=Path("out/bench"), metavar="OUT", help="default out/bench")
    return p


def check_arguments(args: argparse.Namespace) -> None:
    """Refuses what would only fail after minutes."""
    if args.out.is_dir() and any(args.out.iterdir()):
        raise UserError(f"{args.out} holds files already; give another --out or remove it")
    if (args.audio is None) != (args.protocol is None):
        raise UserError("--audio and --protocol go together")
    if args.trials < 2 or args.repeats < 1 or not 0 < args.seconds < math.inf:
        raise UserError("--trials takes at least 2, --repeats 1, --seconds a finite number above 0")
    if args.against and not (args.against / "bench.json").is_file():
        raise UserError(f"{args.against} holds no bench.json; name the OUT of an earlier bench")


def origin_of(args: argparse.Namespace) -> Origin:
    """Returns what MODEL means.

    Raises:
        UserError: It is neither a checkpoint nor a model's name.
    """
    path = Path(args.subject)
    if path.exists():
        if format_of(path).name != "torch":
            raise UserError(f"{path} is exported already; bench takes what it was exported from")
        return Origin(args.model, str(path), args.calibration_audio)
    if args.subject not in model_names():
        raise UserError(f"{args.subject} is no file and no model; there are: {', '.join(model_names())}")
    return Origin(args.subject, args.checkpoint, args.calibration_audio)


def reference_of(origin: Origin, folder: Path) -> Artifact:
    """Returns PyTorch itself, on weights that are written into ``folder`` if they have no file yet."""
    if origin.checkpoint and Path(origin.checkpoint).exists():
        return Artifact(REFERENCE, Path(origin.checkpoint), origin.model)
    model = origin.model or DEFAULT_MODEL
    path = folder / f"{REFERENCE}.pth"
    torch.save(load_pretrained(origin.checkpoint, model).detector.state_dict(), path)
    return Artifact(REFERENCE, path, model)


def make_all(origin: Origin, folder: Path, skip: Sequence[str]) -> dict[str, str | None]:
    """Makes the files, each in a process of its own; returns why each could not be made, or None."""
    failures: dict[str, str | None] = {}
    for label in PRODUCTS:
        if label in skip:
            continue
        say(f"{label}: making")
        try:
            isolated(make_file, label, origin, folder, seconds=STEP_SECONDS)
            failures[label] = None
        except StepFailed as error:
            failures[label] = str(error)
            say(f"{label}: {error}")
    return failures


def distinct(made: dict[str, Path]) -> dict[str, Path]:
    """Returns the files without those that are the same as an earlier one, as most networks' tiles are."""
    kept: dict[str, Path] = {}
    labels: dict[str, str] = {}
    for label, path in made.items():
        first = labels.setdefault(describe_file(path).sha256, label)
        if first == label:
            kept[label] = path
        else:
            say(f"{label}: the same file as {first}, left out")
    return kept


def some_trials(args: argparse.Namespace) -> Clips | None:
    """Returns at most ``--trials`` labelled trials, both classes evenly taken; None where there are none."""
    if args.protocol is None:
        return None
    clips = find_clips(args.protocol, args.audio, format=args.protocol_format, splits=args.split)
    kept: list[int] = []
    for wanted in (True, False):
        rows = np.flatnonzero(clips.is_bonafide == wanted)
        count = min(len(rows), args.trials // 2)
        kept += [rows[index * len(rows) // count] for index in range(count)]
    return Clips(tuple(clips.trials[i] for i in kept), tuple(clips.files[i] for i in kept))


def candidates_of(session: Session, found: dict[str, Accuracy], untimed: Sequence[Path]) -> list[Candidate]:
    """Returns everything that the verdict rests on; PyTorch is first."""
    candidates = []
    for one in session.measured:
        accuracy = found.get(one.artifact.label, Accuracy(False, "not scored"))
        if one.failure is not None:
            accuracy = Accuracy(False, f"it does not run: {one.failure}")
        before = one.facts.get("before_kib")
        known = one.peak_kib is not None and before is not None
        candidates.append(
            Candidate(
                one.artifact.label,
                format_of(one.artifact.path).name,
                describe_file(one.artifact.path).bytes / 1024,
                tuple(judged(one.times, session.threads)),
                (one.peak_kib - before) / 1024 if known and one.peak_kib and before else None,
                accuracy.trusted,
                accuracy.about,
                accuracy.eer,
            )
        )
    for path in untimed:
        kib = describe_file(path).bytes / 1024
        candidates.append(
            Candidate(path.stem, format_of(path).name, kib, (), None, True, "checked when made")
        )
    return candidates


def changes_of(
    candidates: Sequence[Candidate], found: dict[str, Accuracy], clips: Clips | None
) -> dict[str, Change]:
    """Returns how each file compares with the earlier one of its name, where both ran."""
    by_label = {one.label: one for one in candidates if one.times}
    changes = {}
    for label, one in by_label.items():
        old = by_label.get(OLD + label)
        if old is None:
            continue
        new_scores, old_scores = found[label].scores, found[old.label].scores
        scores = None
        if clips is not None and new_scores is not None and old_scores is not None:
            scores = Scores(new_scores, old_scores, clips.is_bonafide)
        changes[label] = compare(one, old, scores)
    return changes


def rows_with_accuracy(session: Session, found: dict[str, Accuracy], changes: dict[str, Change]) -> list[Row]:
    """Returns the rows of latency.py with what scoring said, and what changed since the earlier bench."""
    rows = rows_of(session, HOP_SECONDS)
    for row in rows:
        accuracy = found[row["label"]]
        row |= {"eer": accuracy.eer, "accuracy": accuracy.about, "trusted": accuracy.trusted}
        if change := changes.get(row["label"]):
            row["change"] = asdict(change) | {"regressions": change.regressions}
    return rows


def write_all(
    args: argparse.Namespace, rows: list[Row], verdict: list[str], systems: list[System], channels: list[Row]
) -> None:
    """Writes bench.json and bench.html, and the channels' results beside them."""
    conditions = gather_conditions() | {
        "subject": Path(args.subject).name,
        "load_average_after": load_average(),
        "protocol": {"repeats": args.repeats, "seconds": args.seconds, "hop_s": HOP_SECONDS},
        "verdict": verdict,
    }
    documents: dict[str, Row] = {"bench": {"kind": KIND, "conditions": conditions, "rows": rows}}
    if channels:
        labels = [trial.label for trial in systems[0].scored.trials]
        heard = conditions | {"trials": {name: labels.count(name) for name in sorted(set(labels))}}
        del heard["verdict"]
        documents["robustness"] = {"kind": robustness.KIND, "conditions": heard, "rows": channels}
    for name, document in documents.items():
        write_results(args.out / f"{name}.json", **document, force=True)
    write_page(args.out / "bench.html", page(documents, systems, RENDERERS), True)


def make_and_list(args: argparse.Namespace, origin: Origin) -> tuple[list[Artifact], list[Path], list[str]]:
    """Makes every file; returns those to time, an earlier bench's among them, the others, and what failed."""
    failures = make_all(origin, args.out, args.skip)
    made = distinct(
        {label: path_of(label, args.out) for label, failure in failures.items() if failure is None}
    )
    untimed = [path for path in made.values() if format_of(path).name in UNTIMED]
    artifacts = [Artifact(label, path) for label, path in made.items() if path not in untimed]
    if args.against:
        before = [(one.label, path_of(one.label, args.against)) for one in artifacts]
        artifacts += [Artifact(OLD + label, path) for label, path in before if path.exists()]
    return artifacts, untimed, [f"Not {label}: {why}" for label, why in failures.items() if why]


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    1. make every file
    2. score: on labelled trials, else on generated clips
    3. time all of them in turns, the earlier bench's among them
    4. say which to ship where, and what got worse
    """
    args = parser().parse_args(argv)
    check_arguments(args)
    origin, clips = origin_of(args), some_trials(args)
    make_folder(args.out)
    reference = reference_of(origin, args.out)
    artifacts, untimed, failed = make_and_list(args, origin)
    found = accuracies(artifacts, reference, clips, args.out)
    session = measure(
        [reference, *artifacts], threads=1, repeats=args.repeats, seconds=args.seconds, time_out=TIME_OUT
    )
    candidates = candidates_of(session, found, untimed)
    changes = changes_of(candidates, found, clips)
    verdict = sentences([one for one in candidates if not one.label.startswith(OLD)], REFERENCE) + failed
    if args.against:
        verdict += regression_lines(changes)
    channels = degraded(artifacts[0], clips, args.out) if clips and artifacts else []
    rows = rows_with_accuracy(session, found, changes)
    write_all(args, rows, verdict, systems_of(found, clips), channels)
    print("\n\n".join([table(rows), *([robustness.table(channels)] if channels else []), "\n".join(verdict)]))
    worse = any(change.regressions for change in changes.values())
    return EXIT_CHECK_FAILED if failed or worse else EXIT_DONE


if __name__ == "__main__":
    run(main)
