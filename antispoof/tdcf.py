"""Measures a detector as the gate in front of speaker verification: the minimum tandem detection cost.

Kinnunen et al. 2018, "t-DCF: a Detection Cost Function for the Tandem Assessment of Spoofing
Countermeasures and Automatic Speaker Verification", with the costs of the ASVspoof 2019 evaluation plan.

    ASV  automatic speaker verification, fixed at the threshold of its own EER
    CM   the countermeasure, which is what this project calls a detector
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from antispoof.errors import UserError
from antispoof.metrics import Floats, OperatingPoint, checked_scores, det_curve, equal_error_rate
from antispoof.text_tables import finite_number, text_lines

ASV_KEYS = ("target", "nontarget", "spoof")


@dataclass(frozen=True)
class TandemCost:
    """The priors and costs of the tandem; the defaults are those of ASVspoof 2019."""

    p_spoof: float = 0.05
    p_target: float = 0.95 * 0.99
    p_nontarget: float = 0.95 * 0.01
    c_miss_asv: float = 1.0
    c_false_alarm_asv: float = 10.0
    c_miss_cm: float = 1.0
    c_false_alarm_cm: float = 10.0


ASVSPOOF2019_COST = TandemCost()


@dataclass(frozen=True)
class AsvErrors:
    """The error rates of the speaker verification at its threshold.

    Attributes:
        threshold: where it accepts, at a score of this or more.
        miss: share of target speakers rejected.
        false_alarm: share of other speakers accepted.
        miss_spoof: share of spoofs rejected.
    """

    threshold: float
    miss: float
    false_alarm: float
    miss_spoof: float


def read_asv_scores(path: Path | str) -> dict[str, Floats]:
    """Returns the speaker-verification scores of a file by key: ``target``, ``nontarget``, ``spoof``.

    Raises:
        UserError: the file cannot be read, a line is not ``source key score``, or a key has no score.
    """
    path = Path(path)
    scores: dict[str, list[float]] = {key: [] for key in ASV_KEYS}
    for number, line in text_lines(path):
        fields = line.split()
        if len(fields) != 3 or fields[1] not in scores:
            raise UserError(
                f"{path}:{number}: not a line 'source key score' with the key {' or '.join(ASV_KEYS)}"
            )
        try:
            scores[fields[1]].append(finite_number(fields[2]))
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from None
    for key, values in scores.items():
        if not values:
            raise UserError(f"{path} holds no {key} score")
    return {key: np.array(values, dtype=np.float64) for key, values in scores.items()}


def asv_errors(target: ArrayLike, nontarget: ArrayLike, spoof: ArrayLike) -> AsvErrors:
    """Returns the errors of the speaker verification at the threshold of its EER.

    The EER is taken between target and nontarget speakers; spoofs have no part in it.

    Args:
        target: verification scores (trials,) of the claimed speaker.
        nontarget: verification scores (trials,) of other genuine speakers.
        spoof: verification scores (trials,) of spoofs of the claimed speaker.
    """
    own = checked_scores(target, "ASV target")
    other = checked_scores(nontarget, "ASV nontarget")
    fake = checked_scores(spoof, "ASV spoof")
    threshold = equal_error_rate(own, other).threshold
    return AsvErrors(
        threshold=threshold,
        miss=float(np.mean(own < threshold)),
        false_alarm=float(np.mean(other >= threshold)),
        miss_spoof=float(np.mean(fake < threshold)),
    )


def min_tdcf(
    bonafide: ArrayLike, spoof: ArrayLike, asv: AsvErrors, cost: TandemCost = ASVSPOOF2019_COST
) -> OperatingPoint:
    """Returns the lowest normalised t-DCF that any threshold of the detector reaches.

    1 is what the better of two useless detectors costs, the one that passes everything and the one
    that passes nothing (equation 10 of the ASVspoof 2019 evaluation plan).

    Raises:
        UserError: the speaker verification is so poor that the cost has no meaning.
    """
    miss_weight = (
        cost.p_target * (cost.c_miss_cm - cost.c_miss_asv * asv.miss)
        - cost.p_nontarget * cost.c_false_alarm_asv * asv.false_alarm
    )  # C1 of the plan
    false_alarm_weight = cost.c_false_alarm_cm * cost.p_spoof * (1 - asv.miss_spoof)  # C2
    if miss_weight <= 0 or false_alarm_weight <= 0:
        raise UserError(
            f"the t-DCF has no meaning with these ASV scores (C1 = {miss_weight:.3g}, "
            f"C2 = {false_alarm_weight:.3g}, both must be positive); check the ASV score file"
        )
    curve = det_curve(bonafide, spoof)
    costs = (miss_weight * curve.miss + false_alarm_weight * curve.false_alarm) / min(
        miss_weight, false_alarm_weight
    )
    best = int(np.argmin(costs))
    return OperatingPoint(float(costs[best]), float(curve.thresholds[best]))
