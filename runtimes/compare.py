"""Compares the scores of two runtimes on the same clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtimes.base import Runtime


@dataclass(frozen=True)
class Comparison:
    """Differences in score between a candidate and its reference."""

    clips: int
    max_difference: float
    median_difference: float
    worst: int  # index of the clip with the largest difference
    reference_score: float  # of that clip
    candidate_score: float

    def within(self, tolerance: float) -> bool:
        """Returns whether the largest difference is at most ``tolerance`` (never, if it is NaN)."""
        return self.max_difference <= tolerance


def compare(reference: Runtime, candidate: Runtime, waveforms: np.ndarray) -> Comparison:
    """Scores ``waveforms (clips, samples)`` with both and returns how far they are apart."""
    expected = reference.score(waveforms)
    actual = candidate.score(waveforms)
    difference = np.abs(expected.astype(np.float64) - actual)
    worst = int(np.argmax(difference))
    return Comparison(
        len(waveforms),
        float(difference[worst]),
        float(np.median(difference)),
        worst,
        float(expected[worst]),
        float(actual[worst]),
    )
