"""Thresholds and calibration, against distributions whose log-likelihood ratio is known."""

from __future__ import annotations

import numpy as np
import pytest

from antispoof.errors import UserError
from antispoof.metrics import cllr
from antispoof.thresholds import fit_decisions, fit_llr

# Of 20,000 trials a class; ten standard errors of the fitted slope.
SLOPE_TOLERANCE = 0.1


def scores(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit Gaussians at +1 and -1, whose log-likelihood ratio is twice the score."""
    random = np.random.default_rng(seed)
    return random.normal(1, 1, count), random.normal(-1, 1, count)


def test_the_map_is_the_true_ratio_whatever_the_proportion_and_the_units() -> None:
    bonafide, spoof = scores(20_000)
    assert fit_llr(bonafide, spoof) == pytest.approx((2, 0), abs=SLOPE_TOLERANCE)
    assert fit_llr(bonafide[:2_000], spoof) == pytest.approx((2, 0), abs=3 * SLOPE_TOLERANCE)
    scale, offset = fit_llr(10 * bonafide + 5, 10 * spoof + 5)
    assert (10 * scale, offset + 5 * scale) == pytest.approx((2, 0), abs=SLOPE_TOLERANCE)


def test_calibrated_scores_cost_less_than_raw_ones() -> None:
    bonafide, spoof = scores(2_000)
    scale, offset = fit_llr(8 * bonafide + 3, 8 * spoof + 3)
    fresh = scores(2_000, seed=1)
    calibrated = [scale * (8 * part + 3) + offset for part in fresh]
    assert cllr(*calibrated) < 0.9 * cllr(*(8 * part + 3 for part in fresh))


def test_separable_scores_still_have_a_finite_map() -> None:
    scale, offset = fit_llr(np.arange(5.0, 9), np.arange(-9.0, -5))
    assert 0 < scale < 10
    assert np.isfinite(offset)


def test_operating_points_hold_what_their_names_promise() -> None:
    bonafide, spoof = scores(5_000)
    decisions = fit_decisions(bonafide, spoof, "drawn")
    at = {threshold.name: threshold.score for threshold in decisions.thresholds}
    assert decisions.thresholds[0].name == "eer"
    assert (bonafide < at["eer"]).mean() == pytest.approx((spoof >= at["eer"]).mean(), abs=1e-3)
    assert (spoof >= at["far-1%"]).mean() <= 0.01
    assert (spoof >= at["far-0.1%"]).mean() <= 0.001
    assert not decisions.left_out
    assert decisions.calibration.data == "drawn"


def test_rates_that_the_trials_cannot_show_are_left_out_with_the_reason() -> None:
    decisions = fit_decisions(*scores(50), "few")
    assert {threshold.name for threshold in decisions.thresholds} == {"eer", "min-dcf"}
    assert any("1,000" in reason or "1000" in reason for reason in decisions.left_out)


def test_ways_of_hearing_count_but_make_no_more_trials_of_the_same_ones() -> None:
    bonafide, spoof = scores(90)
    plain = fit_decisions(bonafide, spoof, "")
    thrice = fit_decisions(*(np.stack([part] * 3, axis=1) for part in (bonafide, spoof)), "")
    assert thrice.thresholds == plain.thresholds  # with no far-1%, though there are 270 scores
    assert thrice.calibration.scale == pytest.approx(plain.calibration.scale)
    lower = fit_decisions(*(np.stack([part, part - 2], axis=1) for part in (bonafide, spoof)), "")
    assert lower.thresholds[0].score < plain.thresholds[0].score - 0.5
    with pytest.raises(UserError, match="ways"):
        fit_decisions(bonafide[None, None], spoof[None, None], "")


def test_inverted_and_constant_scores_are_refused() -> None:
    bonafide, spoof = scores(100)
    with pytest.raises(UserError, match=r"inverted|sign"):
        fit_decisions(spoof, bonafide, "")
    with pytest.raises(UserError):
        fit_llr(np.ones(5), np.ones(5))


@pytest.mark.parametrize(("unit", "centre"), [(1e-8, 0), (1, 1e7)])
def test_what_no_manifest_may_hold_is_not_fitted(unit: float, centre: float) -> None:
    bonafide, spoof = scores(50)
    with pytest.raises(UserError, match="too large, or too near one another"):
        fit_decisions(unit * bonafide + centre, unit * spoof + centre, "drawn")
