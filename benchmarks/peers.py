"""Times our files beside other runtimes on the same network, in one run, with the parity of each.

    pip install 'antispoof[peers]'
    python benchmarks/peers.py --checkout path/to/public/aasist --audio clips/
    python benchmarks/peers.py --only our-onnx,plain-export,openvino --extra int8=out/aasist-l.w8a8.onnx

With --checkout, a checkout of the authors' public AASIST code, the others run that code with its own weights
and our exporters are given the same weights; without it they run our network as it is, unfrozen, under plain
settings. Every file is made in --work, in a process of its own, and scores some clips in another; the largest
difference from PyTorch is its parity. What cannot be made or run is a row that says why. The rest are timed
in turns, as by latency.py, with our ONNX file as the base.

--audio gives the clips, some for parity and others for calibration (OpenVINO's INT8); without it they are
generated. Exit code 1 where one of our own files failed; a peer that fails is a result.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.audio import CLIP_SAMPLES
from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, UserError, run
from antispoof.outputs import refuse_existing
from antispoof.speechlike import speech_like_batch
from benchmarks.latency import HOP_SECONDS, parse_artifacts
from benchmarks.peer_builds import BUILDS, CALIBRATION, build
from benchmarks.peer_networks import CONFIGURATIONS, save_network
from benchmarks.results_file import gather_conditions, load_average, write_results
from benchmarks.timing.harness import measure
from benchmarks.timing.isolated import StepFailed, isolated
from benchmarks.timing.latency_rows import rows_of, table
from benchmarks.timing.subjects import open_subject
from benchmarks.timing.worker_handle import Artifact
from runtimes.clips import find_clips, read_heads

KIND = "peers"
WORK = Path("out/peers")
REFERENCE = "pytorch-eager"
OURS = "our-"
CLIPS = 12  # for parity, and as many others for calibration
STEP_SECONDS = 3600.0  # a hang; NNCF takes 100 s of an idle core, and a busy machine gives a tenth of one
PACKAGES = ("openvino", "nncf", "executorch", "MNN")

Row = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A file to compare: what it is in words, where it lies, and why there is none, if so."""

    label: str
    about: str
    path: Path
    failure: str | None = None


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="peers.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--checkout", type=Path, metavar="DIR", help="the authors' public code")
    p.add_argument("--model", choices=sorted(CONFIGURATIONS), default="aasist-l", help="default aasist-l")
    p.add_argument("--checkpoint", metavar="FILE", help="weights (default: the checkout's, or the bundled)")
    p.add_argument("--audio", type=Path, metavar="DIR", help="real speech for parity and calibration")
    p.add_argument("--only", metavar="LABEL[,LABEL...]", help=f"of {', '.join(BUILDS)}")
    p.add_argument("--extra", action="append", default=[], metavar="NAME=FILE", help="another file of ours")
    p.add_argument("--work", type=Path, default=WORK, metavar="DIR", help=f"default {WORK}")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="threads per run (default 1)")
    p.add_argument("--repeats", type=int, default=100, metavar="N", help="measured rounds (default 100)")
    p.add_argument("--seconds", type=float, default=600, metavar="S", help="no further round (default 600)")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def chosen(only: str | None) -> list[str]:
    """Returns the labels to make, the reference of parity among them.

    Raises:
        UserError: One is unknown.
    """
    if only is None:
        return list(BUILDS)
    labels = only.split(",")
    if unknown := [label for label in labels if label not in BUILDS]:
        raise UserError(f"no peer is called {unknown[0]!r}; there are {', '.join(BUILDS)}")
    return [label for label in BUILDS if label in labels or label == REFERENCE]


def clips_for(audio: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns clips ``(clips, samples)`` for parity, and others for calibration."""
    if audio is None:
        clips = speech_like_batch(2 * CLIPS, seed=100)
    else:
        found = find_clips([audio])
        if len(found) < 2 * CLIPS:
            raise UserError(f"{audio} holds {len(found)} recordings; parity and calibration take {2 * CLIPS}")
        spread = [found[index * len(found) // (2 * CLIPS)] for index in range(2 * CLIPS)]
        clips = read_heads([clip.locate() for clip in spread], CLIP_SAMPLES)
    return clips[::2], clips[1::2]


def make(labels: list[str], work: Path) -> list[Candidate]:
    """Makes the files, each in a process of its own."""
    made = []
    for label in labels:
        one = BUILDS[label]
        print(f"{label}: making", file=sys.stderr)
        try:
            isolated(build, label, work, seconds=STEP_SECONDS)
            failure = None
        except StepFailed as error:
            failure = f"not made: {error}".replace(f"{work}/", "")  # no path of this machine is published
            print(f"{label}: {failure}", file=sys.stderr)
        made.append(Candidate(label, one.about, one.path(work), failure))
    return made


def scores_of(path: Path, clips: np.ndarray) -> np.ndarray:
    """Returns a file's scores ``(clips,)``, run one clip at a time."""
    subject = open_subject(path, threads=1)
    return np.array([subject.score(subject.run(clip.reshape(subject.shape))) for clip in clips])


def parity(candidates: list[Candidate], clips: np.ndarray) -> tuple[dict[str, Row], dict[str, str]]:
    """Returns how far each file's scores are from PyTorch's, and why some have none."""
    scores: dict[str, np.ndarray] = {}
    failures = {one.label: one.failure for one in candidates if one.failure}
    for one in candidates:
        if one.failure:
            continue
        print(f"{one.label}: scoring", file=sys.stderr)
        try:
            scores[one.label] = isolated(scores_of, one.path, clips, seconds=STEP_SECONDS)
        except StepFailed as error:
            failures[one.label] = f"does not run: {error}".replace(str(one.path), one.path.name)
            print(f"{one.label}: {failures[one.label]}", file=sys.stderr)
    if REFERENCE not in scores:
        raise UserError(f"PyTorch itself cannot run the network: {failures[REFERENCE]}")
    figures = {}
    for label, values in scores.items():
        difference = np.abs(values - scores[REFERENCE])
        figures[label] = {
            "reference": REFERENCE,
            "clips": len(clips),
            "max": float(difference.max()),
            "median": float(np.median(difference)),
        }
    return figures, failures


def time_candidates(
    candidates: list[Candidate], failures: dict[str, str], args: argparse.Namespace
) -> list[Row]:
    """Times what can run, in turns, and returns a row for each file, in their order."""
    running = [Artifact(one.label, one.path) for one in candidates if one.label not in failures]
    session = measure(
        running, threads=args.threads, repeats=args.repeats, seconds=args.seconds, time_out=STEP_SECONDS
    )
    timed = {row["label"]: row for row in rows_of(session, HOP_SECONDS)}
    rows = []
    for one in candidates:
        missing = {"label": one.label, "threads": args.threads, "failed": failures.get(one.label)}
        rows.append(timed.get(one.label, missing) | {"about": one.about})
    return rows


def circumstances(args: argparse.Namespace) -> Row:
    """Returns what the figures depend on beside the files."""
    conditions = gather_conditions((args.threads,))
    for package in PACKAGES:
        try:
            conditions["packages"][package.lower()] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return conditions | {
        "network": f"{args.model}, the authors' code"
        if args.checkout
        else f"{args.model}, this project's code",
        "weights": Path(args.checkpoint).name
        if args.checkpoint
        else "published"
        if args.checkout
        else "bundled",
        "clips": "recordings" if args.audio else "speech-like, generated",
        "protocol": {"repeats": args.repeats, "seconds": args.seconds, "hop_s": HOP_SECONDS},
    }


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    1. write the network and the calibration clips into the folder of work
    2. make every file
    3. compare scores
    4. time in turns
    """
    args = parser().parse_args(argv)
    labels, extra = chosen(args.only), parse_artifacts(args.extra, None)
    if args.threads < 1 or args.repeats < 1 or not 0 < args.seconds < math.inf:
        raise UserError("--threads and --repeats take at least 1, --seconds a finite number above 0")
    if args.json:
        refuse_existing(args.json, args.force)
    clips, calibration = clips_for(args.audio)
    work = args.work / args.model
    if work.exists():
        raise UserError(f"{work} exists, of an earlier run; remove it or give another --work")
    conditions = circumstances(args)
    save_network(work / "network", args.model, args.checkpoint, args.checkout)
    np.save(work / CALIBRATION, calibration)
    candidates = make(labels, work)
    candidates[1:1] = [Candidate(one.label, f"ours: {one.path.name}", one.path) for one in extra]
    figures, failures = parity(candidates, clips)
    rows = time_candidates(candidates, failures, args)
    for row in rows:
        row["parity"] = figures.get(row["label"])
    if args.json:
        conditions["load_average_after"] = load_average()
        write_results(args.json, KIND, conditions, rows, args.force)
    print(peer_table(rows))
    ours = {one.label for one in extra} | {label for label in labels if label.startswith(OURS)}
    return EXIT_CHECK_FAILED if any("failed" in row for row in rows if row["label"] in ours) else EXIT_DONE


def peer_table(rows: list[Row]) -> str:
    """Returns the table of times, then the parity of each, then why others have no row there."""
    lines = [table([row for row in rows if "failed" not in row]), "", "largest difference from PyTorch"]
    width = max(len(row["label"]) for row in rows)
    for row in rows:
        close = row["parity"]
        what = f"{close['max']:.1e} on {close['clips']} clips" if close else row["failed"]
        lines.append(f"{row['label']:<{width}}  {what}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
