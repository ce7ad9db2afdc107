"""Measures how well scores separate genuine speech from spoofs: EER, DET curve, minDCF, actDCF, Cllr.

A score is higher the more likely the speech is bona fide. Every function takes the scores of the two
classes as one-dimensional arrays. Rates are fractions, not per cent.

    miss         share of bona fide trials that are rejected (false rejection rate)
    false alarm  share of spoofs that are accepted (false acceptance rate)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from antispoof.errors import UserError

Floats = NDArray[np.float64]

# The challenge's tools place the first threshold this far below the lowest score.
BELOW_LOWEST_SCORE = 0.001


class InvertedScores(UserError):
    """The spoofs score higher than the bona fide speech: a sign or a label is the wrong way round."""


@dataclass(frozen=True)
class DetCurve:
    """The error rates at every threshold: all arrays are (trials + 1,), thresholds ascending.

    At ``thresholds[i]`` the trials up to and including the one with that score are rejected.
    """

    miss: Floats
    false_alarm: Floats
    thresholds: Floats

    @property
    def crossing(self) -> int:
        """Where the error rates differ least: the place of the EER."""
        return int(np.argmin(np.abs(self.miss - self.false_alarm)))

    @property
    def eer(self) -> float:
        """The mean of the error rates there."""
        return float((self.miss[self.crossing] + self.false_alarm[self.crossing]) / 2)

    def boundary(self, index: int) -> float:
        """Returns the score halfway between the last trial rejected at ``index`` and the first accepted.

        A threshold that is itself a trial's score would decide that trial by the rounding of the runtime.
        """
        rejected = float(self.thresholds[index])
        above = self.thresholds[self.thresholds > rejected]
        return (rejected + float(above[0])) / 2 if above.size else float(np.nextafter(rejected, np.inf))


@dataclass(frozen=True)
class OperatingPoint:
    """A figure of merit and the threshold where it is reached; a score above the threshold is accepted."""

    value: float
    threshold: float


@dataclass(frozen=True)
class ErrorRates:
    """What decisions got wrong: the share of bona fide trials rejected, and of spoofs accepted."""

    miss: float
    false_alarm: float


@dataclass(frozen=True)
class AttackEer:
    """The EER of one attack's spoofs against all bona fide trials. ``value`` may exceed one half."""

    attack: str
    trials: int
    value: float
    threshold: float


@dataclass(frozen=True)
class DetectionCost:
    """The prior and the costs of a detection cost function; the defaults are those of ASVspoof 5 Track 1."""

    p_spoof: float = 0.05
    c_miss: float = 1.0
    c_false_alarm: float = 10.0

    @property
    def miss_weight(self) -> float:
        """What a miss rate of one costs."""
        return self.c_miss * (1 - self.p_spoof)

    @property
    def false_alarm_weight(self) -> float:
        """What a false-alarm rate of one costs."""
        return self.c_false_alarm * self.p_spoof

    @property
    def bayes_threshold(self) -> float:
        """The log-likelihood ratio (natural logarithm) at which accepting costs as much as rejecting."""
        return float(-np.log(self.miss_weight / self.false_alarm_weight))

    def normalised(self, miss: ArrayLike, false_alarm: ArrayLike) -> Floats:
        """Returns the cost in units of the better of accepting everything and rejecting everything."""
        cost = self.miss_weight * np.asarray(miss) + self.false_alarm_weight * np.asarray(false_alarm)
        return cost / min(self.miss_weight, self.false_alarm_weight)


ASVSPOOF5_COST = DetectionCost()


def checked_scores(values: ArrayLike, what: str) -> Floats:
    """Returns ``values`` as a float64 array (trials,).

    Raises:
        UserError: there are none, they are not in one row, or one is NaN or infinite.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1:
        raise UserError(f"the {what} scores must be one-dimensional, not of shape {scores.shape}")
    if scores.size == 0:
        raise UserError(f"there is no {what} trial, and an error rate needs both classes")
    bad = np.count_nonzero(~np.isfinite(scores))
    if bad:
        raise UserError(f"{bad} of {scores.size} {what} scores are NaN or infinite")
    return scores


def det_curve(bonafide: ArrayLike, spoof: ArrayLike) -> DetCurve:
    """Returns both error rates at every threshold, as the ASVspoof tools define them.

    Among equal scores the bona fide trials are rejected first, which is the pessimistic order:
    a tie between the classes always counts as an error.
    """
    genuine, fake = checked_scores(bonafide, "bona fide"), checked_scores(spoof, "spoof")
    scores = np.concatenate((genuine, fake))
    order = np.argsort(scores, kind="stable")
    genuine_rejected = np.concatenate(([0], np.cumsum(order < genuine.size)))
    fake_rejected = np.arange(scores.size + 1) - genuine_rejected
    lowest = scores[order[0]] - BELOW_LOWEST_SCORE
    return DetCurve(
        miss=genuine_rejected / genuine.size,
        false_alarm=(fake.size - fake_rejected) / fake.size,
        thresholds=np.concatenate(([lowest], scores[order])),
    )


def equal_error_rate(
    bonafide: ArrayLike, spoof: ArrayLike, *, allow_inverted: bool = False
) -> OperatingPoint:
    """Returns the equal error rate: the mean of miss and false alarm where they differ least.

    Args:
        bonafide: scores (trials,) of the genuine speech.
        spoof: scores (trials,) of the spoofs.
        allow_inverted: returns an EER above one half instead of refusing it. Right for a single
            attack, which can beat a sound detector.

    Raises:
        InvertedScores: the EER is above one half.
        UserError: a class is empty, a score is not finite, or nearly all scores are the same.
    """
    curve = _upright_curve(bonafide, spoof, allow_inverted)
    return OperatingPoint(curve.eer, float(curve.thresholds[curve.crossing]))


def decision_threshold(bonafide: ArrayLike, spoof: ArrayLike, *, allow_inverted: bool = False) -> float:
    """Returns a threshold of the EER that is no trial's own score, to decide by; see `DetCurve.boundary`.

    Raises:
        UserError: as `equal_error_rate`.
    """
    curve = _upright_curve(bonafide, spoof, allow_inverted)
    return curve.boundary(curve.crossing)


def _upright_curve(bonafide: ArrayLike, spoof: ArrayLike, allow_inverted: bool) -> DetCurve:
    curve = det_curve(bonafide, spoof)
    if curve.eer > 0.5 and not allow_inverted:
        _refuse_inverted(curve.eer, bonafide, spoof)
    return curve


def _refuse_inverted(eer: float, bonafide: ArrayLike, spoof: ArrayLike) -> None:
    flipped = equal_error_rate(np.negative(bonafide), np.negative(spoof), allow_inverted=True).value
    if flipped > 0.5:
        # Ties count against the detector whichever way the scores point: nothing is inverted here.
        distinct = np.unique(np.concatenate((np.asarray(bonafide), np.asarray(spoof)))).size
        raise UserError(
            f"EER {eer:.2%} comes from ties: the scores have only {distinct} distinct values, "
            "so score with finer steps before measuring"
        )
    raise InvertedScores(
        f"EER {eer:.2%} is above 50 %: the scores look inverted (negated they give {flipped:.2%}); "
        "a higher score must mean bona fide, so check the sign of the scores and the labels"
    )


def error_rates(bonafide: ArrayLike, spoof: ArrayLike, threshold: float) -> ErrorRates:
    """Returns what deciding at a threshold gets wrong, where a score at the threshold is accepted."""
    genuine, fake = checked_scores(bonafide, "bona fide"), checked_scores(spoof, "spoof")
    return ErrorRates(float(np.mean(genuine < threshold)), float(np.mean(fake >= threshold)))


def eer_by_attack(scores: ArrayLike, is_bonafide: ArrayLike, attacks: Sequence[str]) -> tuple[AttackEer, ...]:
    """Returns the EER of each attack against all bona fide trials, sorted by attack.

    Args:
        scores: (trials,).
        is_bonafide: (trials,) booleans.
        attacks: each trial's attack; what stands at a bona fide trial is not looked at.
    """
    values, genuine = np.asarray(scores, dtype=np.float64), np.asarray(is_bonafide, dtype=bool)
    if not values.shape == genuine.shape == (len(attacks),):
        raise UserError(
            f"{values.size} scores, {genuine.size} labels and {len(attacks)} attacks do not belong together"
        )
    names, which = np.unique(np.asarray(attacks, dtype=str)[~genuine], return_inverse=True)
    spoofs = values[~genuine]
    results = []
    for number, name in enumerate(names):
        own = spoofs[which == number]
        point = equal_error_rate(values[genuine], own, allow_inverted=True)
        results.append(AttackEer(str(name), own.size, point.value, point.threshold))
    return tuple(results)


def min_dcf(bonafide: ArrayLike, spoof: ArrayLike, cost: DetectionCost = ASVSPOOF5_COST) -> OperatingPoint:
    """Returns the lowest normalised detection cost that any threshold reaches (minDCF).

    ASVspoof 5 evaluation plan, Track 1: the primary figure with the default ``cost``.
    """
    curve = det_curve(bonafide, spoof)
    costs = cost.normalised(curve.miss, curve.false_alarm)
    best = int(np.argmin(costs))
    return OperatingPoint(float(costs[best]), float(curve.thresholds[best]))


def actual_dcf(
    bonafide_llr: ArrayLike, spoof_llr: ArrayLike, cost: DetectionCost = ASVSPOOF5_COST
) -> OperatingPoint:
    """Returns the normalised detection cost at the Bayes threshold (actDCF).

    Only log-likelihood ratios (natural logarithm) have a Bayes threshold: any other score gives a figure
    without meaning. Here a ratio at the threshold is accepted, as in the ASVspoof 5 tools.
    """
    genuine, fake = checked_scores(bonafide_llr, "bona fide"), checked_scores(spoof_llr, "spoof")
    rates = error_rates(genuine, fake, cost.bayes_threshold)
    return OperatingPoint(float(cost.normalised(rates.miss, rates.false_alarm)), cost.bayes_threshold)


def cllr(bonafide_llr: ArrayLike, spoof_llr: ArrayLike) -> float:
    """Returns the cost of the log-likelihood ratios in bits: 0 is perfect, 1 is knowing nothing.

    Brümmer and du Preez 2006, "Application-independent evaluation of speaker detection".
    """
    genuine, fake = checked_scores(bonafide_llr, "bona fide"), checked_scores(spoof_llr, "spoof")
    # logaddexp(0, x) is log(1 + exp(x)) that does not overflow.
    cost = np.mean(np.logaddexp(0.0, -genuine)) + np.mean(np.logaddexp(0.0, fake))
    return float(cost / (2 * np.log(2)))


def det_points(curve: DetCurve, count: int = 100, lowest: float = 0.001) -> tuple[Floats, Floats]:
    """Thins a DET curve to ``count`` points for plotting.

    The false-alarm rates depend on ``count`` and ``lowest`` alone, so two systems share one grid.

    Returns:
        false_alarm: (count,), from ``lowest`` to 1 - ``lowest``, evenly spaced on the probit scale.
        miss: (count,), the least miss rate of a threshold with at most that false-alarm rate.
    """
    normal = NormalDist()
    edge = -normal.inv_cdf(lowest)
    false_alarm = np.array([normal.cdf(x) for x in np.linspace(-edge, edge, count)])
    first = np.searchsorted(-curve.false_alarm, -false_alarm, side="left")
    return false_alarm, curve.miss[first]


def tied_share(bonafide: ArrayLike, spoof: ArrayLike) -> float:
    """Returns the share of all trials whose score occurs in both classes.

    Coarse scores, such as those of an 8-bit output, are tied often, and ``equal_error_rate`` counts each
    tie as an error: a large share says that part of the EER is rounding.
    """
    genuine, fake = checked_scores(bonafide, "bona fide"), checked_scores(spoof, "spoof")
    common = np.intersect1d(genuine, fake)
    tied = np.count_nonzero(np.isin(genuine, common)) + np.count_nonzero(np.isin(fake, common))
    return float(tied / (genuine.size + fake.size))
