"""Fits what turns scores into decisions: operating points, and the map from score to log-likelihood ratio.

Both belong to one file. Quantization moves scores even where it leaves the EER alone, so what was fitted for
the float file may be wrong for its 8-bit copy, which gets it only where its scores hardly moved
(quantize/pipeline.py). Fit on trials that no figure is reported on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from antispoof.errors import UserError
from antispoof.manifest import Calibration, Threshold
from antispoof.manifest_reader import what_cannot_decide
from antispoof.metrics import (
    ASVSPOOF5_COST,
    DetectionCost,
    Floats,
    InvertedScores,
    checked_scores,
    det_curve,
    equal_error_rate,
)

FALSE_ALARM_RATES = (0.01, 0.001)
MAX_STEPS = 100  # of Newton's method, which needs about ten
SMALLEST_STEP = 1e-10  # in units of the standardised score


@dataclass(frozen=True)
class Decisions:
    """What was fitted to a file's scores on one list of trials.

    Attributes:
        calibration: The affine map to log-likelihood ratios.
        thresholds: Operating points; the first is that of the EER.
        left_out: Why operating points are missing, one sentence each.
    """

    calibration: Calibration
    thresholds: tuple[Threshold, ...]
    left_out: tuple[str, ...] = ()


def fit_decisions(
    bonafide: ArrayLike, spoof: ArrayLike, data: str, cost: DetectionCost = ASVSPOOF5_COST
) -> Decisions:
    """Fits the calibration and every operating point that the trials can support.

    A trial that was heard in several ways counts once for each of them, but remains one trial where the
    question is what so many trials can show.

    Args:
        bonafide: Scores (trials,) or (trials, ways) of the genuine speech.
        spoof: Scores (trials,) or (trials, ways) of the spoofs.
        data: What the trials are, for the manifest.
        cost: Of the cost-weighted operating point.

    Raises:
        UserError: A class is empty, a score is not finite, the scores are inverted, or no manifest could hold
            what was fitted.
    """
    (genuine, _), (fake, spoofs) = _heard(bonafide, "bona fide"), _heard(spoof, "spoof")
    equal_error_rate(genuine, fake)  # refuses inverted scores and hopeless ties
    curve = det_curve(genuine, fake)
    chosen = {"eer": curve.crossing}
    left_out = []
    for rate in FALSE_ALARM_RATES:
        if rate * spoofs < 1:
            left_out.append(
                f"false-alarm rate {rate:.1%}: {spoofs} spoofs cannot show it; it takes {round(1 / rate)}"
            )
        else:
            chosen[f"far-{rate * 100:g}%"] = int(np.argmax(curve.false_alarm <= rate))
    chosen["min-dcf"] = int(np.argmin(cost.normalised(curve.miss, curve.false_alarm)))
    thresholds = tuple(Threshold(name, curve.boundary(at), data) for name, at in chosen.items())
    calibration = Calibration(*fit_llr(bonafide, spoof), data)
    if problem := what_cannot_decide(calibration, thresholds):
        raise UserError(f"the scores are too large, or too near one another, to decide by: {problem}")
    return Decisions(calibration, thresholds, tuple(left_out))


def _heard(scores: ArrayLike, what: str) -> tuple[Floats, int]:
    """Returns scores (trials,) or (trials, ways) in one row, and how many trials they are of."""
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim not in (1, 2):
        raise UserError(f"the {what} scores must be (trials,) or (trials, ways), not of shape {table.shape}")
    return checked_scores(table.ravel(), what), len(table)


def fit_llr(bonafide: ArrayLike, spoof: ArrayLike) -> tuple[float, float]:
    """Returns scale and offset such that ``scale * score + offset`` is a log-likelihood ratio.

    Scores are (trials,) or (trials, ways).

    Logistic regression in which both classes weigh the same, so that the trials' own proportion leaves no
    trace (Brümmer and du Preez 2006). Its targets are a trial short of certainty on either side, after
    Platt 1999, "Probabilistic outputs for support vector machines", eq. 10 and 11: without that the scale
    of separable classes has no bound.

    Raises:
        UserError: As `metrics.equal_error_rate`, or a higher score means spoof.
    """
    (genuine, recordings), (fake, spoofs) = _heard(bonafide, "bona fide"), _heard(spoof, "spoof")
    scores = np.concatenate((genuine, fake))
    centre, spread = float(scores.mean()), float(scores.std())
    if spread == 0:
        raise UserError("all scores are the same: there is nothing to calibrate")
    target = np.repeat([(recordings + 1) / (recordings + 2), 1 / (spoofs + 2)], [genuine.size, fake.size])
    weight = np.repeat([0.5 / genuine.size, 0.5 / fake.size], [genuine.size, fake.size])
    scale, offset = _logistic_regression((scores - centre) / spread, target, weight)
    if scale <= 0:
        raise InvertedScores("a higher score means spoof here: check the sign of the scores and the labels")
    return scale / spread, offset - scale * centre / spread


def _logistic_regression(x: Floats, target: Floats, weight: Floats) -> tuple[float, float]:
    """Returns slope and intercept of least weighted cross entropy, by Newton's method with halved steps."""
    design = np.stack([x, np.ones_like(x)], axis=1)  # (trials, 2)

    def loss(parameters: Floats) -> float:
        z = design @ parameters
        return float(weight @ (np.logaddexp(0, z) - target * z))

    parameters = np.zeros(2)
    for _ in range(MAX_STEPS):
        probability = 0.5 * (1 + np.tanh(design @ parameters / 2))  # the sigmoid, without overflow
        gradient = design.T @ (weight * (probability - target))
        curvature = (design * (weight * probability * (1 - probability))[:, None]).T @ design
        # The ridge is below any rounding of a real fit; it keeps saturated probabilities solvable.
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2), gradient)
        while loss(parameters - step) > loss(parameters) and np.abs(step).max() > SMALLEST_STEP:
            step /= 2
        parameters = parameters - step
        if np.abs(step).max() <= SMALLEST_STEP:
            break
    return float(parameters[0]), float(parameters[1])
