"""Says how long something takes, and which of two is faster, from times taken in turn.

A round measures everything once. What slows a round down (another program, a lower clock) slows all of
it down alike, so two are compared by the ratio of their times within each round; the median of the
ratios is the result. Neighbouring rounds resemble each other, so the bootstrap draws runs of
consecutive rounds (the moving blocks of Kuensch 1989, "The jackknife and the bootstrap for general
stationary observations"), of length n^(1/3).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from antispoof.bootstrap import DRAWS, LEVEL, Interval

# The same file in two processes differs by up to about 2 % for as long as both live: it is laid out
# differently in memory. No number of rounds averages that out, so a smaller ratio is no finding.
MIN_EFFECT = 0.03
P99_RUNS = 100  # with fewer, the 99th percentile is just the slowest run
KEPT_TIMES = 200  # of a measurement, to draw how they are distributed

FASTER, SLOWER, SAME = "faster", "slower", "no significant difference"


def percentiles(times: ArrayLike) -> dict[str, float | None]:
    """Returns p50, p90 and p99 (None for fewer than 100 times), in the unit of ``times (runs,)``."""
    p50, p90, p99 = np.quantile(np.asarray(times, np.float64), (0.5, 0.9, 0.99))
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99) if np.size(times) >= P99_RUNS else None}


def kept_times(times: ArrayLike) -> list[float]:
    """Returns at most 200 of ``times (runs,)`` to four digits, in their order and at even distances."""
    values = np.asarray(times, np.float64)
    places = np.linspace(0, values.size - 1, min(values.size, KEPT_TIMES)).round().astype(int)
    return [float(f"{value:.4g}") for value in values[places]]


def median_interval(times: ArrayLike, *, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> Interval:
    """Returns the median of ``times (rounds,)`` with its bootstrap interval."""
    values = np.asarray(times, np.float64)
    medians = np.median(values[_block_draws(values.size, draws, seed)], axis=1)
    low, high = np.quantile(medians, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(np.median(values)), float(low), float(high), level, draws, seed)


def ratio_interval(
    times: ArrayLike, base: ArrayLike, *, draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Returns the median over rounds of ``times / base``, both ``(rounds,)``, with its bootstrap interval."""
    ratios = np.asarray(times, np.float64) / np.asarray(base, np.float64)
    return median_interval(ratios, draws=draws, seed=seed, level=level)


def _block_draws(count: int, draws: int, seed: int) -> NDArray[np.int64]:
    """Returns ``(draws, count)`` indices: blocks of consecutive rounds, the last before the first."""
    length = max(1, round(count ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(count, size=(draws, math.ceil(count / length), 1))
    return ((starts + np.arange(length)) % count).reshape(draws, -1)[:, :count]


def verdict(ratio: Interval) -> str:
    """Returns ``faster``, ``slower`` or ``no significant difference`` for the ratio of a time to another.

    Significant is a ratio whose whole interval is more than `MIN_EFFECT` away from 1. (An interval that
    merely leaves out 1, around an estimate beyond `MIN_EFFECT`, would now and then let 2 % pass for 3 %.)
    """
    return _word(ratio.low, ratio.high)


def verdict_of_change(now: Interval, then: Interval) -> str:
    """Returns the same words for a ratio against what it was in an earlier measurement.

    The measurements share no round, so the worst cases of both are taken together.
    """
    return _word(now.low / then.high, now.high / then.low)


def _word(low: float, high: float) -> str:
    if low > 1 + MIN_EFFECT:
        return SLOWER
    return FASTER if high < 1 / (1 + MIN_EFFECT) else SAME
