"""Says how far an EER, or the difference of two, could be off: percentile bootstrap intervals.

Trials are drawn with replacement within each class, so every draw has as many bona fide trials and as
many spoofs as the data. Two systems are compared on the same draws (Bisani and Ney 2004, "Bootstrap
estimates for confidence intervals in ASR performance evaluation"). Trials are taken as independent:
where few speakers give many trials each, the true interval is wider.

A trial may have been heard in several ways, each of which is a score: its scores are then drawn together,
because ways of hearing one recording say less than as many recordings.

A bootstrap cannot draw what it has not seen: where no trial is an error its interval has no width, on ten
trials as on ten thousand. So no EER's interval ends below what the number of trials can show: an error that
none of n trials shows has a rate of up to 3 / n (95 %, the "rule of three", Hanley and Lippman-Hand 1983).

The scores are sorted once. A draw is then a weight per trial, and its EER is found from one cumulative
sum, which is exact: it equals ``metrics.equal_error_rate`` of the drawn scores to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from antispoof.errors import UserError
from antispoof.metrics import checked_scores, equal_error_rate

Ints = NDArray[np.int64]

CLASSES = ("bona fide", "spoof")
DRAWS = 1000
LEVEL = 0.95
RULE_OF_THREE = 3.0


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval.

    Attributes:
        estimate: the figure on the data itself.
        low: lower end.
        high: upper end.
        level: share of repetitions that such an interval should cover.
        draws: number of bootstrap draws.
        seed: of the random generator.
    """

    estimate: float
    low: float
    high: float
    level: float
    draws: int
    seed: int


class _SortedTrials:
    """The trials of one system in the order of their scores, ready for weighting; its EER on all of them."""

    def __init__(self, bonafide: ArrayLike, spoof: ArrayLike) -> None:
        """Sorts the scores of either class, (trials,) or (trials, ways)."""
        classes = [np.asarray(scores, dtype=np.float64) for scores in (bonafide, spoof)]
        self.ways = _ways(*classes)
        rows = [checked_scores(scores.ravel(), what) for scores, what in zip(classes, CLASSES, strict=True)]
        self.estimate = equal_error_rate(*rows, allow_inverted=True).value
        self.bonafide_count, self.spoof_count = (row.size for row in rows)
        # Stable and bona fide first, as in metrics.det_curve.
        self.order = np.argsort(np.concatenate(rows), kind="stable")
        self.is_bonafide = self.order < self.bonafide_count
        # In units of 1 / (bonafide_count * spoof_count) both error rates move by whole numbers.
        self.step = np.where(self.is_bonafide, self.spoof_count, self.bonafide_count).astype(np.int64)

    def eer(self, weights: Ints) -> float:
        """Returns the EER when trial i, bona fide ones first, occurs ``weights[i]`` times."""
        n_bonafide, n_spoof = self.bonafide_count, self.spoof_count
        drawn = np.repeat(weights, self.ways)[self.order]
        # miss - false alarm, plus one, rises from 0 to 2; the rates cross at 1.
        risen = np.cumsum(drawn * self.step)
        crossing = int(np.searchsorted(risen, n_bonafide * n_spoof))
        bonafide_rejected = int(drawn[:crossing] @ self.is_bonafide[:crossing])
        spoof_rejected = int(drawn[:crossing].sum()) - bonafide_rejected
        before = int(risen[crossing - 1]) if crossing else 0
        # Of the copies of the trial where they cross, the last up to 1 or the next one is nearest.
        copies = (n_bonafide * n_spoof - before) // int(self.step[crossing])
        nearest = []
        for count in range(copies, min(copies + 1, int(drawn[crossing])) + 1):
            extra_bonafide, extra_spoof = (count, 0) if self.is_bonafide[crossing] else (0, count)
            miss = (bonafide_rejected + extra_bonafide) / n_bonafide
            false_alarm = (n_spoof - spoof_rejected - extra_spoof) / n_spoof
            nearest.append((abs(miss - false_alarm), (miss + false_alarm) / 2))
        return min(nearest, key=lambda gap_and_eer: gap_and_eer[0])[1]


def _ways(bonafide: NDArray[np.float64], spoof: NDArray[np.float64]) -> int:
    """Returns how many scores each trial has, one where they are (trials,)."""
    shapes = bonafide.shape, spoof.shape
    if any(len(shape) not in (1, 2) for shape in shapes) or shapes[0][1:] != shapes[1][1:]:
        raise UserError(
            f"scores must be one-dimensional, or (trials, ways) with as many ways in both classes, "
            f"not of shape {shapes[0]} and {shapes[1]}"
        )
    return int(np.prod(shapes[0][1:]))


def _draws(n_bonafide: int, n_spoof: int, draws: int, seed: int) -> Iterator[Ints]:
    """Yields how often each trial (bona fide ones first) occurs, (trials,), once for every draw."""
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.concatenate(
            [np.bincount(generator.integers(n, size=n), minlength=n) for n in (n_bonafide, n_spoof)]
        )


def resolution(n_bonafide: int, n_spoof: int) -> float:
    """Returns how high the EER may be where none of so many trials is an error, at most 1."""
    return min(1.0, RULE_OF_THREE * (1 / n_bonafide + 1 / n_spoof) / 2)


def _interval(estimate: float, values: NDArray[np.float64], level: float, seed: int) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, values.size, seed)


def _check(draws: int, level: float) -> None:
    if draws < 1:
        raise UserError(f"a bootstrap needs at least one draw, not {draws}")
    if not 0 < level < 1:
        raise UserError(f"the level of an interval lies between 0 and 1, not at {level}")


def eer_interval(
    bonafide: ArrayLike,
    spoof: ArrayLike,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    watch: Callable[[Iterable[Ints]], Iterable[Ints]] = iter,
) -> Interval:
    """Returns the EER with its bootstrap interval.

    Args:
        bonafide: scores (trials,) or (trials, ways) of the genuine speech.
        spoof: scores (trials,) or (trials, ways) of the spoofs, in as many ways.
        draws: number of bootstrap draws.
        seed: of the random generator; the same seed gives the same interval.
        level: share of repetitions that the interval should cover.
        watch: wraps the draws to show the progress, as ``tqdm`` does.

    Raises:
        UserError: as ``metrics.equal_error_rate``, except that an EER above one half passes; or the classes
            were heard in differently many ways.
    """
    _check(draws, level)
    trials = _SortedTrials(bonafide, spoof)
    sizes = np.shape(bonafide)[0], np.shape(spoof)[0]
    values = np.array([trials.eer(weights) for weights in watch(_draws(*sizes, draws, seed))])
    interval = _interval(trials.estimate, values, level, seed)
    return replace(interval, high=max(interval.high, resolution(*sizes)))


def eer_difference(
    first: ArrayLike,
    second: ArrayLike,
    is_bonafide: ArrayLike,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Returns the EER of ``first`` minus that of ``second`` with its paired bootstrap interval.

    Both systems are measured on the same draws, so what makes a draw hard for both cancels out. An
    interval that leaves out zero says that the systems differ.

    Args:
        first: scores (trials,) of one system.
        second: scores (trials,) of the other, for the same trials in the same order.
        is_bonafide: (trials,) booleans.
        draws: number of bootstrap draws.
        seed: of the random generator.
        level: share of repetitions that the interval should cover.
    """
    _check(draws, level)
    genuine = np.asarray(is_bonafide, dtype=bool)
    systems = [np.asarray(scores, dtype=np.float64) for scores in (first, second)]
    if not systems[0].shape == systems[1].shape == genuine.shape:
        raise UserError(
            f"a paired comparison needs the same trials twice, not {systems[0].size} and "
            f"{systems[1].size} scores for {genuine.size} labels"
        )
    a, b = (_SortedTrials(scores[genuine], scores[~genuine]) for scores in systems)
    counts = _draws(a.bonafide_count, a.spoof_count, draws, seed)
    values = np.array([a.eer(weights) - b.eer(weights) for weights in counts])
    return _interval(a.estimate - b.estimate, values, level, seed)


def mean_eer(
    scores: ArrayLike,
    is_bonafide: ArrayLike,
    less: ArrayLike | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Returns the mean EER of several systems, such as the seeds of one recipe, with its bootstrap interval.

    All are measured on the same draws of the trials, so the interval is that of these systems on other
    trials. What other seeds would have given is not in it.

    Args:
        scores: (systems, trials) or (systems, trials, ways).
        is_bonafide: (trials,) booleans.
        less: Of other systems, shaped likewise, whose mean EER on the same draws is taken off, if given.
        draws: number of bootstrap draws.
        seed: of the random generator.
        level: share of repetitions that the interval should cover.
    """
    _check(draws, level)
    genuine = np.asarray(is_bonafide, dtype=bool)
    groups = [np.asarray(scores, np.float64)] + ([] if less is None else [np.asarray(less, np.float64)])
    if any(group.ndim not in (2, 3) or not len(group) or group.shape[1] != genuine.size for group in groups):
        shapes = " and ".join(str(group.shape) for group in groups)
        raise UserError(
            f"scores of {shapes} are not (systems, trials) or (systems, trials, ways) "
            f"for {genuine.size} labels"
        )
    sides = [
        (sign / len(group), _SortedTrials(system[genuine], system[~genuine]))
        for sign, group in zip((1, -1), groups, strict=False)
        for system in group
    ]
    estimate = sum(share * trials.estimate for share, trials in sides)
    sizes = int(genuine.sum()), int((~genuine).sum())
    counts = _draws(*sizes, draws, seed)
    values = np.array([sum(share * trials.eer(weights) for share, trials in sides) for weights in counts])
    interval = _interval(estimate, values, level, seed)
    if less is not None:
        return interval  # a difference: two systems may well make the same errors
    return replace(interval, high=max(interval.high, resolution(*sizes)))
