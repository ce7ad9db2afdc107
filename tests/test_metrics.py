"""The figures of merit against published digits, hand-worked cases, laws they obey, and brute force."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antispoof.bootstrap import eer_difference, eer_interval, mean_eer, resolution
from antispoof.errors import UserError
from antispoof.metrics import (
    DetectionCost,
    InvertedScores,
    actual_dcf,
    cllr,
    det_curve,
    det_points,
    eer_by_attack,
    equal_error_rate,
    min_dcf,
    tied_share,
)
from antispoof.score_files import read_scores
from antispoof.tdcf import AsvErrors, asv_errors, min_tdcf, read_asv_scores

ROUNDING = 1e-12  # sums of rates in another order

# EER %, min t-DCF and some attacks' EER %, with as many digits as were published.
PUBLISHED: dict[str, tuple[str, str, dict[str, str]]] = {
    "AASIST-L-retrained": (
        "3.372631550",
        "0.103981446",
        {"A07": "1.449822051", "A08": "1.466795158", "A09": "0.308981373", "A10": "1.483768265"},
    ),
    "RawGAT-ST-mul": ("1.06013475", "0.03354", {}),
}

# From few values, so that ties within and between the classes are the rule.
coarse = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12)


def same_digits(value: float, published: str) -> bool:
    return f"{value:.{len(published.partition('.')[2])}f}" == published


def normal_scores(n_bonafide: int, n_spoof: int, distance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(distance, 1, n_bonafide), generator.normal(0, 1, n_spoof)


@pytest.mark.parametrize("system", PUBLISHED)
def test_published_figures_come_out_to_every_digit(shared: Path, system: str) -> None:
    eer, tdcf, attack_eers = PUBLISHED[system]
    scored = read_scores(shared / "oracles" / f"{system}.2019LA.eval.scores.txt")
    asv = read_asv_scores(shared / "oracles" / "ASVspoof2019.LA.asv.eval.gi.trl.scores.txt")
    assert scored.trials is not None
    genuine = np.array([trial.label == "bonafide" for trial in scored.trials])
    bonafide, spoof = scored.scores[genuine], scored.scores[~genuine]

    assert (bonafide.size, spoof.size) == (7_355, 63_882)
    assert same_digits(100 * equal_error_rate(bonafide, spoof).value, eer)
    assert same_digits(min_tdcf(bonafide, spoof, asv_errors(**asv)).value, tdcf)
    rows = {
        row.attack: row
        for row in eer_by_attack(scored.scores, genuine, [trial.attack for trial in scored.trials])
    }
    assert sorted(rows) == [f"A{number:02d}" for number in range(7, 20)]
    assert all(row.trials == 4_914 for row in rows.values())
    assert all(same_digits(100 * rows[attack].value, digits) for attack, digits in attack_eers.items())


def test_the_eer_of_a_small_case_by_hand() -> None:
    # Sorted: s0 s1 b2 s3 b4 b5. After b2, miss is 1/3 and so is the false alarm.
    point = equal_error_rate([2, 4, 5], [0, 1, 3])
    assert point.value == pytest.approx(1 / 3, abs=ROUNDING)
    assert point.threshold == 2.0


def test_the_eer_is_the_mean_of_both_rates_where_they_cannot_be_equal() -> None:
    # Two bona fide, three spoofs. Rejecting s0 s1 leaves (0, 1/3), then b2 (1/2, 1/3): the nearer pair.
    assert equal_error_rate([2, 4], [0, 1, 3]).value == pytest.approx((1 / 2 + 1 / 3) / 2, abs=ROUNDING)


def test_separated_classes_have_no_error() -> None:
    assert equal_error_rate([3, 4], [1, 2]).value == 0
    assert min_dcf([3, 4], [1, 2]).value == 0


def test_a_tie_between_the_classes_counts_as_an_error() -> None:
    assert equal_error_rate([1, 2], [0, 1]).value == 0.5
    assert tied_share([1, 2], [0, 1]) == 0.5


def test_det_curve_runs_from_accepting_all_to_rejecting_all() -> None:
    curve = det_curve([2, 4], [1, 3])
    assert curve.thresholds.tolist() == [0.999, 1, 2, 3, 4]
    assert curve.miss.tolist() == [0, 0, 0.5, 0.5, 1]
    assert curve.false_alarm.tolist() == [1, 0.5, 0.5, 0, 0]


def test_det_points_lie_on_the_curve_and_do_not_depend_on_the_system() -> None:
    bonafide, spoof = normal_scores(4_000, 5_000, 2.0, seed=1)
    curve = det_curve(bonafide, spoof)
    grid, miss = det_points(curve, count=21)
    assert grid.size == miss.size == 21
    assert np.array_equal(grid, det_points(det_curve([1], [0]), count=21)[0])
    for false_alarm, lowest in zip(grid, miss, strict=True):
        assert lowest == curve.miss[curve.false_alarm <= false_alarm].min()
    # Unit normals two apart: at a false alarm of one half every second spoof and 2.3 % of the speech fail.
    assert miss[10] == pytest.approx(0.0228, abs=0.01)  # 4,000 trials: four standard errors


@given(coarse, coarse)
def test_eer_and_min_dcf_agree_with_brute_force(bonafide: list[float], spoof: list[float]) -> None:
    # Every count of rejected trials, among equal scores the bona fide ones first.
    ordered = sorted([(score, 0) for score in bonafide] + [(score, 1) for score in spoof])
    rates = []
    for rejected in range(len(ordered) + 1):
        missed = sum(1 for _, kind in ordered[:rejected] if kind == 0) / len(bonafide)
        accepted = sum(1 for _, kind in ordered[rejected:] if kind == 1) / len(spoof)
        rates.append((missed, accepted))
    nearest = min(rates, key=lambda pair: abs(pair[0] - pair[1]))
    assert equal_error_rate(bonafide, spoof, allow_inverted=True).value == sum(nearest) / 2
    # ASVspoof 5: (0.95 miss + 0.5 false alarm) / 0.5.
    cheapest = min((0.95 * missed + 0.05 * 10 * accepted) / 0.5 for missed, accepted in rates)
    assert min_dcf(bonafide, spoof).value == pytest.approx(cheapest, abs=ROUNDING)


def test_a_rising_transform_leaves_eer_and_costs_alone() -> None:
    bonafide, spoof = normal_scores(301, 502, 1.5, seed=2)
    for measure in (equal_error_rate, min_dcf):
        plain, bent = measure(bonafide, spoof), measure(np.exp(bonafide) + 7, np.exp(spoof) + 7)
        assert bent.value == plain.value
        assert bent.threshold == pytest.approx(math.exp(plain.threshold) + 7)


def test_swapping_the_classes_and_the_sign_leaves_the_eer_alone() -> None:
    # Odd counts: no two thresholds are equally near, so that the first nearest is the last as well.
    bonafide, spoof = normal_scores(301, 503, 1.5, seed=3)
    swapped = equal_error_rate(-spoof, -bonafide).value
    assert swapped == pytest.approx(equal_error_rate(bonafide, spoof).value, abs=ROUNDING)


def test_inverted_scores_are_refused_unless_asked_for() -> None:
    bonafide, spoof = normal_scores(100, 100, 3.0, seed=4)
    with pytest.raises(InvertedScores, match="look inverted"):
        equal_error_rate(-bonafide, -spoof)
    assert equal_error_rate(-bonafide, -spoof, allow_inverted=True).value > 0.9


def test_scores_that_hardly_differ_are_not_called_inverted() -> None:
    with pytest.raises(UserError, match="2 distinct values") as caught:
        equal_error_rate([0, 0, 0, 1], [0, 0, 0, 1])
    assert not isinstance(caught.value, InvertedScores)


@pytest.mark.parametrize(
    ("bonafide", "spoof", "says"),
    [
        ([], [1.0], "no bona fide trial"),
        ([1.0], [], "no spoof trial"),
        ([1.0, math.nan], [0.0], "1 of 2 bona fide scores"),
        ([1.0], [0.0, math.inf, -math.inf], "2 of 3 spoof scores"),
        ([[1.0]], [0.0], "one-dimensional"),
    ],
)
def test_unusable_scores_are_named(bonafide: list[float], spoof: list[float], says: str) -> None:
    for measure in (equal_error_rate, min_dcf, actual_dcf, cllr, eer_interval):
        with pytest.raises(UserError, match=says):
            measure(bonafide, spoof)


def test_actual_dcf_uses_the_bayes_threshold() -> None:
    point = actual_dcf([5.0, -5.0, 5.0, 5.0], [-5.0, -5.0])
    assert point.threshold == pytest.approx(-math.log(0.95 / 0.5))
    assert point.value == pytest.approx(0.25 * 0.95 / 0.5)  # one in four missed, no false alarm
    # A ratio exactly at the threshold is accepted.
    assert actual_dcf([point.threshold], [-9.0]).value == 0
    assert actual_dcf([9.0], [point.threshold]).value == 1.0


def test_actual_dcf_is_at_least_min_dcf_and_equal_for_good_ratios() -> None:
    # Unit normals d apart have the exact log-likelihood ratio d * score - d * d / 2.
    bonafide, spoof = normal_scores(20_000, 20_000, 2.0, seed=5)
    llrs = 2 * bonafide - 2, 2 * spoof - 2
    least, actual = min_dcf(*llrs).value, actual_dcf(*llrs).value
    assert least <= actual < least + 0.01  # sampling noise of 20,000 trials
    assert actual_dcf(llrs[0] + 3, llrs[1] + 3).value > actual + 0.05
    cheap = DetectionCost(p_spoof=0.5, c_miss=1, c_false_alarm=1)
    assert actual_dcf(*llrs, cheap).value / 2 == pytest.approx(equal_error_rate(*llrs).value, abs=0.01)


def test_cllr_of_known_ratios() -> None:
    assert cllr([0.0, 0.0], [0.0]) == pytest.approx(1.0)  # knows nothing: one bit
    assert cllr([math.log(3)], [-math.log(3)]) == pytest.approx(math.log2(4 / 3))
    assert cllr([1000.0], [-1000.0]) == 0.0
    assert cllr([-1000.0], [1000.0]) == pytest.approx(1000 / math.log(2))  # no overflow


def test_tdcf_of_a_useless_detector_is_one_and_of_a_perfect_one_zero() -> None:
    asv = AsvErrors(threshold=0.0, miss=0.02, false_alarm=0.02, miss_spoof=0.3)
    assert min_tdcf([3, 4], [1, 2], asv).value == 0
    assert min_tdcf([1, 2], [3, 4], asv).value == pytest.approx(1.0)


def test_tdcf_weights_by_hand() -> None:
    asv = AsvErrors(threshold=0.0, miss=0.1, false_alarm=0.2, miss_spoof=0.5)
    c1 = 0.9405 * (1 - 0.1) - 0.0095 * 10 * 0.2
    c2 = 10 * 0.05 * (1 - 0.5)
    # The only sensible thresholds: reject nothing wrongly and accept one spoof of four, or miss one of two.
    expected = min(c2 * 1 / 4, c1 * 1 / 2) / min(c1, c2)
    assert min_tdcf([2, 4], [0, 1, 1.5, 3], asv).value == pytest.approx(expected)


def test_a_tandem_without_meaning_is_refused() -> None:
    with pytest.raises(UserError, match="ASV score file"):
        min_tdcf([1], [0], AsvErrors(threshold=0.0, miss=0.0, false_alarm=0.0, miss_spoof=1.0))


def test_asv_scores_are_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "asv.txt"
    file.write_text("bonafide target 2.5\nbonafide nontarget -1\nA01 spoof 2.0\n")
    assert {key: values.tolist() for key, values in read_asv_scores(file).items()} == {
        "target": [2.5],
        "nontarget": [-1.0],
        "spoof": [2.0],
    }
    for text, says in (
        ("bonafide target\n", ":1: not a line"),
        ("bonafide target 1\nbonafide target x\n", ":2: 'x' is not a number"),
        ("bonafide target 1\nbonafide nontarget 0\n", "no spoof score"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=says):
            read_asv_scores(file)


def test_each_attack_is_measured_against_all_bona_fide_speech() -> None:
    scores = [5, 6, 7, 1, 2, 8, 9]
    rows = eer_by_attack(scores, [True, True, True, *[False] * 4], ["-"] * 3 + ["A1", "A1", "A2", "A2"])
    assert [(row.attack, row.trials, row.value) for row in rows] == [("A1", 2, 0.0), ("A2", 2, 1.0)]
    with pytest.raises(UserError, match="7 scores, 7 labels and 2 attacks"):
        eer_by_attack(scores, [True] * 7, ["A1", "A2"])


# Bootstrap


@given(coarse, coarse, st.integers(0, 1_000))
def test_the_interval_is_that_of_the_eers_of_the_drawn_trials(
    bonafide: list[float], spoof: list[float], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    eers = []
    for _ in range(4):
        drawn = [np.array(s)[generator.integers(len(s), size=len(s))] for s in (bonafide, spoof)]
        eers.append(equal_error_rate(*drawn, allow_inverted=True).value)
    interval = eer_interval(bonafide, spoof, draws=4, seed=seed, level=0.8)
    low, high = np.quantile(eers, [0.1, 0.9])
    ends = low, max(high, resolution(len(bonafide), len(spoof)))
    assert (interval.low, interval.high) == pytest.approx(ends, abs=ROUNDING)


def test_trials_without_an_error_leave_room_for_those_that_so_many_cannot_show() -> None:
    for bonafide, spoof, high in ((50, 50, 3 / 50), (100, 300, 0.02), (1, 1, 1.0)):
        scores = np.arange(bonafide) + 1.0, -np.arange(spoof)
        interval = eer_interval(*scores, draws=10)
        assert (interval.estimate, interval.low, interval.high) == (0, 0, pytest.approx(high))
    genuine = np.arange(100) < 50
    seeds = np.stack([genuine + 0.0] * 2)
    assert mean_eer(seeds, genuine, draws=10).high == pytest.approx(3 / 50)
    assert mean_eer(seeds, genuine, seeds, draws=10).high == 0  # the same errors are no difference


def test_the_interval_covers_the_truth_as_often_as_it_says_and_is_no_wider_than_needed() -> None:
    truth = 0.5 * math.erfc(1 / math.sqrt(2))  # unit normals two apart: the EER is Phi(-1), 15.87 %
    repetitions = 200
    intervals = [
        eer_interval(*normal_scores(150, 300, 2.0, seed=seed), draws=200, seed=seed)
        for seed in range(repetitions)
    ]
    covered = sum(interval.low <= truth <= interval.high for interval in intervals) / repetitions
    # Four standard errors of a share of 0.95 in 200, and one point for 200 draws' coarse quantiles.
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / repetitions) + 0.01
    spread = np.std([interval.estimate for interval in intervals])
    width = np.mean([interval.high - interval.low for interval in intervals])
    assert width == pytest.approx(2 * 1.96 * spread, rel=0.25)  # the spread itself is known to 5 %, thrice


def test_ways_of_hearing_a_trial_are_drawn_together() -> None:
    bonafide, spoof = normal_scores(50, 60, 1.0, seed=6)
    once = eer_interval(bonafide, spoof, draws=50)
    thrice = eer_interval(*(np.repeat(scores[:, None], 3, axis=1) for scores in (bonafide, spoof)), draws=50)
    # No narrower for being heard thrice, but for where a rate crosses the other in the middle of a trial.
    assert astuple(thrice) == pytest.approx(astuple(once), abs=0.5 / 50)
    apart = eer_interval(np.repeat(bonafide, 3), np.repeat(spoof, 3), draws=50)
    assert apart.high - apart.low < 0.8 * (once.high - once.low)  # 0.58 of it if trials were that many
    with pytest.raises(UserError, match="trials, ways"):
        eer_interval(bonafide[:, None], spoof, draws=2)


def test_the_interval_depends_on_the_seed_alone() -> None:
    scores = normal_scores(50, 60, 1.0, seed=6)
    assert eer_interval(*scores, draws=50, seed=1) == eer_interval(*scores, draws=50, seed=1)
    assert eer_interval(*scores, draws=50, seed=1) != eer_interval(*scores, draws=50, seed=2)


def test_a_paired_difference_sees_what_two_intervals_cannot() -> None:
    generator = np.random.default_rng(7)
    genuine = np.arange(3_000) < 1_000
    quality = np.where(genuine, 2.0, 0.0) + generator.normal(size=3_000)
    better = quality + generator.normal(scale=0.1, size=3_000)
    worse = quality + generator.normal(scale=0.6, size=3_000)
    difference = eer_difference(worse, better, genuine, draws=300)
    singles = [eer_interval(s[genuine], s[~genuine], draws=300) for s in (worse, better)]
    assert difference.estimate == pytest.approx(singles[0].estimate - singles[1].estimate, abs=ROUNDING)
    assert 0 < difference.low < difference.estimate < difference.high
    unpaired_width = math.hypot(*(single.high - single.low for single in singles))
    assert difference.high - difference.low < 0.75 * unpaired_width  # 0.64 with these trials


def test_a_system_does_not_differ_from_itself() -> None:
    scores, genuine = np.arange(20.0), np.arange(20) % 3 == 0
    difference = eer_difference(scores, 2 * scores, genuine, draws=20)
    assert (difference.estimate, difference.low, difference.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: eer_difference([1, 2], [1, 2, 3], [True, False]), "same trials twice"),
        (lambda: eer_difference([1, 2], [1, 2], [True, True]), "no spoof trial"),
        (lambda: eer_interval([1], [0], draws=0), "at least one draw"),
        (lambda: eer_interval([1], [0], level=1.0), "between 0 and 1"),
    ],
)
def test_a_bootstrap_that_cannot_be_is_refused(call: Callable[[], object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        call()
