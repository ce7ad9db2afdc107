"""Draws what score files say: DET curves of several systems, and how one's scores moved to another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from antispoof.errors import UserError
from antispoof.metrics import decision_threshold, det_curve, det_points, equal_error_rate
from antispoof.score_files import ScoredTrials
from benchmarks.pages.charts import COLOURS, Plot, linear_axis, rate_axis

LOWEST_RATE, HIGHEST_RATE = 0.001, 0.6
LEAST_ERRORS = 3  # a rate below this many of the smaller class's trials is left out: it shows nothing
MOST_DOTS = 1500  # of trials that kept their decision; those that did not are drawn as far as this, too


@dataclass(frozen=True)
class System:
    """A name, and scores with their labels."""

    name: str
    scored: ScoredTrials

    @property
    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the bona fide trials and of the spoofs."""
        genuine = self.scored.is_bonafide
        return self.scored.scores[genuine], self.scored.scores[~genuine]


def det_chart(systems: Sequence[System]) -> str:
    """Returns the DET curves of up to six systems, each with a point at its EER."""
    if len(systems) > COLOURS:
        raise UserError(f"a chart shows up to {COLOURS} score files, not {len(systems)}")
    fewest = min(min(map(len, system.classes)) for system in systems)
    low = min(max(LOWEST_RATE, LEAST_ERRORS / fewest), 0.05)
    plot = Plot(
        rate_axis("false alarm rate, %", low, HIGHEST_RATE), rate_axis("miss rate, %", low, HIGHEST_RATE)
    )
    plot.line([(low, low), (HIGHEST_RATE, HIGHEST_RATE)], "guide")
    for index, system in enumerate(systems):
        false_alarm, miss = det_points(det_curve(*system.classes), 200, low)
        inside = [(x, y) for x, y in zip(false_alarm, miss, strict=True) if x <= HIGHEST_RATE]
        plot.line(_until_low(inside, low), f"s{index}")
        eer = equal_error_rate(*system.classes, allow_inverted=True).value
        plot.dot(eer, eer, f"s{index}", f"{system.name}: EER {eer:.2%}", radius=4)
    names = ", ".join(system.name for system in systems)
    return plot.svg(f"DET curves of {names}")


def _until_low(points: list[tuple[float, float]], low: float) -> list[tuple[float, float]]:
    """Returns the points up to the first whose miss rate is off the chart; from there on it is the edge."""
    off = next((index for index, (_, miss) in enumerate(points) if miss < low), len(points))
    return points[: off + 1]


@dataclass(frozen=True)
class Movement:
    """The chart of two systems' scores, and how many trials changed sides.

    Attributes:
        svg: The chart.
        trials: How many both scored.
        flipped: How many lie on another side of the first system's threshold.
        drawn: How many are drawn.
    """

    svg: str
    trials: int
    flipped: int
    drawn: int


def movement_chart(before: System, after: System) -> Movement:
    """Draws each trial by its two scores; those decided otherwise at the first one's EER stand out.

    Raises:
        UserError: The two have no trial in common.
    """
    first, second, genuine = _common(before, after)
    threshold = decision_threshold(*before.classes, allow_inverted=True)
    flipped = (first >= threshold) != (second >= threshold)
    x, y = (
        linear_axis(f"score, {name}", scores, from_zero=False)
        for name, scores in ((before.name, first), (after.name, second))
    )
    plot = Plot(x, y)
    plot.line([(threshold, y.low), (threshold, y.high)], "guide")
    plot.line([(x.low, threshold), (x.high, threshold)], "guide")
    kept, moved = (_thinned(np.flatnonzero(chosen)) for chosen in (~flipped, flipped))
    for index in (*kept, *moved):
        what = "bona fide" if genuine[index] else "spoof"
        css = f"{'s0' if genuine[index] else 's1'} {'flipped' if flipped[index] else 'kept'}"
        about = f"{what}: {first[index]:.2f}, then {second[index]:.2f}" if flipped[index] else ""
        plot.dot(first[index], second[index], css, about, 3.2 if flipped[index] else 1.8)
    count = int(flipped.sum())
    svg = plot.svg(f"scores of {before.name} against {after.name}; {count} of {first.size} decisions differ")
    return Movement(svg, first.size, count, len(kept) + len(moved))


def _common(before: System, after: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the scores of the trials that both have, and which of them are bona fide."""
    known = {trial.name: score for trial, score in zip(after.scored.trials, after.scored.scores, strict=True)}
    rows = [index for index, trial in enumerate(before.scored.trials) if trial.name in known]
    if not rows:
        raise UserError(f"{before.name} and {after.name} have no trial in common")
    second = np.array([known[before.scored.trials[index].name] for index in rows])
    return before.scored.scores[rows], second, before.scored.is_bonafide[rows]


def _thinned(indices: np.ndarray) -> np.ndarray:
    """Returns at most `MOST_DOTS` of the indices, evenly taken."""
    return indices[:: max(1, -(-indices.size // MOST_DOTS))]
