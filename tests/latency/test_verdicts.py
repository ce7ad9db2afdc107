"""Verdicts find differences that are there, and none that are not, on a noisy machine too."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.timing import latency_rows
from benchmarks.timing.harness import judged, measure, order_of_round
from benchmarks.timing.ratios import (
    FASTER,
    SAME,
    SLOWER,
    Interval,
    kept_times,
    median_interval,
    percentiles,
    ratio_interval,
    verdict,
    verdict_of_change,
)
from benchmarks.timing.worker_handle import Artifact
from tests.latency.timed_models import TIME_OUT_S, write_model

# The same file in two processes, on a machine shared with others (see MIN_EFFECT for the quiet case).
SAME_FILE_TOLERANCE = 0.05


def noisy_rounds(generator: np.random.Generator, rounds: int, *factors: float) -> list[np.ndarray]:
    """Times of several programs on a busy machine: phases that slow all of them, and outliers of each."""
    phases = np.repeat(generator.uniform(1, 3, rounds // 10 + 1), 10)[:rounds]
    single = generator.lognormal(0, 0.03, (len(factors), rounds))
    spikes = np.where(generator.random(single.shape) < 0.05, generator.uniform(1, 4, single.shape), 1.0)
    return [factor * phases * noise for factor, noise in zip(factors, single * spikes, strict=True)]


def test_verdict_finds_ten_percent_and_never_two_on_a_noisy_machine() -> None:
    for seed in range(60):
        base, same, two, ten = noisy_rounds(np.random.default_rng(seed), 200, 1.0, 1.0, 1.02, 1.1)
        assert verdict(ratio_interval(ten, base)) == SLOWER, seed
        assert verdict(ratio_interval(base, ten)) == FASTER, seed
        assert verdict(ratio_interval(same, base)) == SAME, seed
        assert verdict(ratio_interval(two, base)) == SAME, seed


def test_interval_of_the_ratio_covers_the_truth_as_often_as_it_says() -> None:
    intervals = []
    for seed in range(200):
        base, other = noisy_rounds(np.random.default_rng(1000 + seed), 60, 1.0, 1.1)
        intervals.append(ratio_interval(other, base, draws=300))
    covered = np.mean([interval.low <= 1.1 <= interval.high for interval in intervals])
    # 0.95 is promised; three standard errors of 200 trials are 0.05, and the bootstrap is slightly short.
    assert covered >= 0.88


@pytest.mark.parametrize(
    ("estimate", "low", "high", "word"),
    [
        (1.10, 1.05, 1.15, SLOWER),
        (0.90, 0.85, 0.95, FASTER),
        (1.10, 0.99, 1.20, SAME),  # perhaps none
        (1.10, 1.02, 1.20, SAME),  # perhaps too small
        (1.02, 1.01, 1.03, SAME),  # certainly too small
        (0.975, 0.97, 0.98, SAME),
    ],
)
def test_verdict_needs_certainty_and_size(estimate: float, low: float, high: float, word: str) -> None:
    assert verdict(Interval(estimate, low, high, 0.95, 1000, 0)) == word


def test_change_between_measurements_needs_intervals_apart() -> None:
    then = Interval(1.0, 0.98, 1.02, 0.95, 1000, 0)
    assert verdict_of_change(Interval(1.1, 1.06, 1.14, 0.95, 1000, 0), then) == SLOWER
    assert verdict_of_change(Interval(0.9, 0.88, 0.92, 0.95, 1000, 0), then) == FASTER
    assert verdict_of_change(Interval(1.1, 1.04, 1.2, 0.95, 1000, 0), then) == SAME


def test_at_most_two_hundred_times_are_kept_from_first_to_last() -> None:
    assert kept_times([1.23456, 2.0]) == [1.235, 2.0]
    assert kept_times([7.0]) == [7.0]
    kept = kept_times(np.arange(1001.0))
    assert (len(kept), kept[:3], kept[-1]) == (200, [0.0, 5.0, 10.0], 1000.0)


def test_percentiles_leave_out_a_p99_that_nothing_supports() -> None:
    assert percentiles(np.arange(101)) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert percentiles([1.0, 2.0, 3.0])["p99"] is None
    interval = median_interval(np.arange(101))
    assert interval.low < interval.estimate == 50 < interval.high


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_order_gives_every_artifact_every_place_and_every_predecessor(count: int) -> None:
    orders = [order_of_round(index, count) for index in range(2 * count)]
    for place in range(count):
        assert sorted(order[place] for order in orders) == sorted([*range(count)] * 2)
    pairs = {pair for order in orders for pair in pairwise(order)}
    assert all((b, a) in pairs for a, b in pairs)


def test_judged_by_processor_time_only_where_one_thread_computes() -> None:
    assert judged([(3.0, 1.0)], threads=1) == [1.0]
    assert judged([(3.0, 5.0)], threads=2) == [3.0]


@pytest.mark.slow
def test_planted_slowdowns_under_load(tmp_path: Path) -> None:
    """The same file twice within 5 %, ten percent found, two percent not, while another program computes."""
    layers = {"base": 100, "same": 100, "two": 102, "ten": 110}
    artifacts = [
        Artifact(name, write_model(tmp_path / f"{name}.onnx", count)) for name, count in layers.items()
    ]
    done = threading.Event()
    load = threading.Thread(target=_disturb, args=(done,))
    load.start()
    try:
        session = measure(artifacts, threads=1, repeats=400, seconds=120, time_out=TIME_OUT_S)
    finally:
        done.set()
        load.join()
    _, same, two, ten = latency_rows.rows_of(session, hop_s=0.5)
    assert same["ratio"]["cpu"]["estimate"] == pytest.approx(1, abs=SAME_FILE_TOLERANCE)
    assert ten["verdict"] == SLOWER
    assert two["verdict"] == same["verdict"] == SAME


def _disturb(done: threading.Event) -> None:
    """Keeps one more core busy, on and off, until told to stop."""
    while not done.is_set():
        process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        done.wait(3)
        process.kill()
        process.wait()
        time.sleep(1)
