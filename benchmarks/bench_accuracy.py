"""Says how well the files of a bench score: on labelled trials where there are some, else against PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError
from antispoof.formats import format_of
from antispoof.manifest_reader import read_manifest
from antispoof.metrics import equal_error_rate
from antispoof.score_files import ScoredTrials
from antispoof.speechlike import speech_like_batch
from benchmarks import gate, robustness
from benchmarks.pages.score_charts import System
from benchmarks.timing.worker_handle import Artifact
from benchmarks.trial_scores import Clips, score_clips
from runtimes import load
from runtimes.clips import PARITY_CLIPS

REFERENCE = "pytorch"
OLD = "old-"  # before the label of a file from an earlier bench
DEGRADATIONS = ("g711", "mp3-64k", "snr-10db")

Row = dict[str, Any]


@dataclass(frozen=True)
class Accuracy:
    """What scoring said of a file: whether it may stand in, why, its EER and its scores, if there are any."""

    trusted: bool
    about: str
    eer: float | None = None
    scores: np.ndarray | None = None


def score_all(artifacts: Sequence[Artifact], clips: Clips, folder: Path) -> dict[str, np.ndarray]:
    """Returns the scores of every artifact on the trials; what cannot score is left out and said."""
    scores = {}
    for one in artifacts:
        say(f"{one.label}: scoring")
        try:
            scores[one.label] = score_clips(load(one.path, model=one.model), clips, folder / "scores")
        except UserError as error:
            say(f"{one.label}: {error}")
    return scores


def on_trials(artifact: Artifact, scores: dict[str, np.ndarray], clips: Clips) -> Accuracy:
    """Returns whether a file may stand in for PyTorch, by the rule of parity.py."""
    mine = scores.get(artifact.label)
    if mine is None:
        return Accuracy(False, "it could not be scored")
    if artifact.label == REFERENCE:
        genuine = clips.is_bonafide
        eer = equal_error_rate(mine[genuine], mine[~genuine]).value
        return Accuracy(True, f"EER {eer:.1%}", eer, mine)
    verdict = gate.judge(scores[REFERENCE], mine, clips.trials)
    close = verdict.agreement.max_difference
    tolerance = format_of(artifact.path).tolerance
    trusted = verdict.word == "PASS" or close <= tolerance
    same = f"scores within {close:.0e} of PyTorch's" if close <= tolerance else verdict.reasons[0]
    about = f"EER {verdict.candidate_eer:.1%}, {same}"
    return Accuracy(trusted, about if trusted else f"{verdict.word}, {about}", verdict.candidate_eer, mine)


def on_generated(artifact: Artifact, reference: np.ndarray, clips: np.ndarray) -> Accuracy:
    """Returns whether a file's scores are PyTorch's on generated clips: enough for float32, not for INT8."""
    precision = read_manifest(artifact.path).precision
    close = float(np.abs(load(artifact.path).score(clips) - reference).max())
    about = f"scores within {close:.0e} of PyTorch's on {len(clips)} generated clips"
    if precision != "float32":
        return Accuracy(False, f"{precision}, not scored on labelled trials (--audio, --protocol)")
    return Accuracy(close <= format_of(artifact.path).tolerance, about)


def accuracies(
    artifacts: Sequence[Artifact], reference: Artifact, clips: Clips | None, folder: Path
) -> dict[str, Accuracy]:
    """Returns what scoring says of every artifact, PyTorch among them."""
    if clips is not None:
        scores = score_all([reference, *artifacts], clips, folder)
        if REFERENCE not in scores:
            raise UserError("PyTorch itself could not score the trials")
        return {one.label: on_trials(one, scores, clips) for one in (reference, *artifacts)}
    runtime = load(reference.path, model=reference.model)
    given = speech_like_batch(PARITY_CLIPS, runtime.input.samples)
    expected = runtime.score(given)
    found = {one.label: on_generated(one, expected, given) for one in artifacts}
    return {REFERENCE: Accuracy(True, "the reference"), **found}


def degraded(artifact: Artifact, clips: Clips, folder: Path) -> list[Row]:
    """Returns what a few channels do to a file."""
    known = {one.name for one in robustness.choose(None)}
    chosen = robustness.choose(",".join(name for name in DEGRADATIONS if name in known))
    return robustness.measure(artifact, clips, chosen, folder / "scores", draws=500)


def systems_of(found: dict[str, Accuracy], clips: Clips | None) -> list[System]:
    """Returns the scores that the page draws."""
    if clips is None:
        return []
    trials = list(clips.trials)
    return [
        System(label, ScoredTrials(trials, one.scores, None))
        for label, one in found.items()
        if one.scores is not None and not label.startswith(OLD)
    ]


def say(text: str) -> None:
    """Prints progress to stderr."""
    print(text, file=sys.stderr, flush=True)
