"""Decides whether one model may stand in for another: PASS, FAIL or UNDERPOWERED, with every reason.

The candidate's EER may lie at most an allowed difference above the reference's. Both score the same trials,
so the difference has a paired bootstrap interval, and the verdict follows from where that lies:

    PASS          its upper end is within what is allowed
    FAIL          the difference itself is not, or the candidate is no copy of the reference at all
    UNDERPOWERED  the difference is, the upper end is not: more trials could show either

Where no trial changes sides the interval has no width. So the upper end is never below what the number of
trials can show (`antispoof.bootstrap.resolution`); a candidate that gives the very same scores is exempt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from antispoof.bootstrap import DRAWS, Interval, eer_difference, resolution
from antispoof.errors import UserError
from antispoof.metrics import decision_threshold, equal_error_rate
from antispoof.protocols import BONAFIDE, Trial
from antispoof.tdcf import AsvErrors, min_tdcf

Floats = NDArray[np.float64]
Word = Literal["PASS", "FAIL", "UNDERPOWERED"]

ALLOWED_EER_DIFFERENCE = 0.003
# Copies reach 0.99 and more even in 8 bits, the same architecture trained again about 0.8.
LEAST_CORRELATION = 0.95
MOST_TRIALS = 10**9  # a need beyond this is no number of trials but "never"


@dataclass(frozen=True)
class Rule:
    """What a candidate must keep to.

    Attributes:
        allowed: By how much its EER may be higher, a fraction.
        least_correlation: Pearson's, below which it is no copy.
        draws: Of the bootstrap.
        seed: Of the bootstrap.
    """

    allowed: float = ALLOWED_EER_DIFFERENCE
    least_correlation: float = LEAST_CORRELATION
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses a difference that no number of trials could show.

        Raises:
            UserError: It is not above 0.
        """
        if not self.allowed > 0:
            raise UserError(f"the allowed EER difference must be above 0, not {self.allowed:g}")


@dataclass(frozen=True)
class Agreement:
    """How close two models' scores are, trial by trial."""

    pearson: float
    spearman: float
    median_difference: float
    p95_difference: float
    max_difference: float


@dataclass(frozen=True)
class Flip:
    """A trial that the candidate decides otherwise than the reference, where the reference's EER is."""

    name: str
    label: str
    attack: str
    reference: float
    candidate: float


@dataclass(frozen=True)
class Verdict:
    """The word, why, and the figures behind it. Rates are fractions.

    Attributes:
        word: PASS, FAIL or UNDERPOWERED.
        reasons: One sentence each; for PASS what was shown.
        bonafide: Number of bona fide trials.
        spoof: Number of spoofs.
        reference_eer: EER of the reference.
        candidate_eer: EER of the candidate; above one half where it is inverted.
        threshold: Of the reference's EER, between two of its scores.
        difference: Candidate's EER minus the reference's; ``high`` is at least ``resolution``.
        resolution: What the number of trials could at best show the difference to be below.
        trials_needed: How many trials, in the same proportion, would show the allowed difference; None where
            none would.
        agreement: Of the scores.
        flips: Trials decided otherwise.
        min_tdcf: Of reference and candidate, where there are verification scores.
    """

    word: Word
    reasons: tuple[str, ...]
    bonafide: int
    spoof: int
    reference_eer: float
    candidate_eer: float
    threshold: float
    difference: Interval
    resolution: float
    trials_needed: int | None
    agreement: Agreement
    flips: tuple[Flip, ...]
    min_tdcf: tuple[float, float] | None = None

    def failed(self, reason: str) -> Verdict:
        """Returns the verdict with one more reason to fail."""
        kept = self.reasons if self.word == "FAIL" else ()
        return replace(self, word="FAIL", reasons=(*kept, reason))


def agreement(reference: ArrayLike, candidate: ArrayLike) -> Agreement:
    """Returns how close two rows of scores ``(trials,)`` are; correlations of constant scores are 0."""
    a, b = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    difference = np.abs(a - b)
    return Agreement(
        _correlation(a, b),
        _correlation(ranks(a), ranks(b)),
        float(np.median(difference)),
        float(np.quantile(difference, 0.95)),
        float(difference.max()),
    )


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else 0.0


def ranks(values: ArrayLike) -> Floats:
    """Returns the rank of each value, from 0; equal values share the mean of their ranks."""
    array = np.asarray(values)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def flips(
    reference: Floats, candidate: Floats, trials: Sequence[Trial], threshold: float
) -> tuple[Flip, ...]:
    """Returns the trials on different sides of the threshold, the farthest moved first."""
    other = np.flatnonzero((reference >= threshold) != (candidate >= threshold))
    return tuple(
        Flip(
            trials[i].name,
            trials[i].label,
            trials[i].attack,
            float(reference[i]),
            float(candidate[i]),
        )
        for i in sorted(other, key=lambda i: -abs(reference[i] - candidate[i]))
    )


def judge(
    reference: ArrayLike,
    candidate: ArrayLike,
    trials: Sequence[Trial],
    rule: Rule = Rule(),
    asv: AsvErrors | None = None,
) -> Verdict:
    """Compares two models by their scores on the same trials.

    Args:
        reference: Scores ``(trials,)`` of the model that is trusted.
        candidate: Scores ``(trials,)`` of the one that would replace it.
        trials: What was scored.
        rule: What the candidate must keep to.
        asv: Errors of the speaker verification, for the min t-DCF.

    Raises:
        UserError: A class is empty, a score is not finite, or the reference's own scores are inverted.
    """
    a, b = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    genuine = np.array([trial.label == BONAFIDE for trial in trials])
    of_reference = equal_error_rate(a[genuine], a[~genuine])
    threshold = decision_threshold(a[genuine], a[~genuine])
    of_candidate = equal_error_rate(b[genuine], b[~genuine], allow_inverted=True)
    interval = eer_difference(b, a, genuine, draws=rule.draws, seed=rule.seed)
    counts = int(genuine.sum()), int((~genuine).sum())
    shown = 0.0 if np.array_equal(a, b) else resolution(*counts)
    tdcf = None
    if asv is not None:
        tdcf = tuple(min_tdcf(scores[genuine], scores[~genuine], asv).value for scores in (a, b))
    verdict = Verdict(
        "PASS",
        (),
        *counts,
        reference_eer=of_reference.value,
        candidate_eer=of_candidate.value,
        threshold=threshold,
        difference=replace(interval, high=max(interval.high, shown)),
        resolution=shown,
        trials_needed=trials_needed(interval, shown, sum(counts), rule.allowed),
        agreement=agreement(a, b),
        flips=flips(a, b, trials, threshold),
        min_tdcf=None if tdcf is None else (tdcf[0], tdcf[1]),
    )
    return _with_word(verdict, rule)


def _with_word(verdict: Verdict, rule: Rule) -> Verdict:
    pearson, difference, allowed = verdict.agreement.pearson, verdict.difference, rule.allowed
    if verdict.candidate_eer > 0.5:
        verdict = verdict.failed(
            f"the candidate's scores look inverted: EER {verdict.candidate_eer:.2%}, Pearson {pearson:.3f}"
        )
    if pearson < rule.least_correlation:
        verdict = verdict.failed(
            f"the scores correlate by {pearson:.4f}, less than {rule.least_correlation:g}: this is no copy"
        )
    if difference.estimate > allowed:
        verdict = verdict.failed(
            f"the EER is {difference.estimate:.2%} higher, more than the allowed {allowed:.2%}"
        )
    if verdict.word == "FAIL":
        return verdict
    shown = f"the EER is at most {difference.high:.2%} higher ({difference.level:.0%} interval)"
    if difference.high <= allowed:
        return replace(verdict, reasons=(f"{shown}, within the allowed {allowed:.2%}",))
    count = verdict.bonafide + verdict.spoof
    need = verdict.trials_needed
    enough = "no number of trials would" if need is None else f"about {need:,} trials would"
    return replace(
        verdict,
        word="UNDERPOWERED",
        reasons=(f"{count:,} trials only show that {shown}; {enough} show the allowed {allowed:.2%}",),
    )


def trials_needed(interval: Interval, resolution: float, trials: int, allowed: float) -> int | None:
    """Returns how many trials would bring the upper end within what is allowed, None if none would.

    The interval narrows with the root of the number of trials, the resolution with the number itself.
    """
    room = allowed - interval.estimate
    if room <= 0:
        return None
    # Of the interval itself, which may be skewed, the upper half-width counts.
    width = max(interval.high - interval.estimate, 0.0)
    by_interval = trials * (width / room) ** 2
    needed = max(by_interval, trials * resolution / allowed, 1.0)
    return math.ceil(needed) if needed < MOST_TRIALS else None
