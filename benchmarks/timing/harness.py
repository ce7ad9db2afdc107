"""Times artifacts in turn, each in a process of its own.

    1. start every artifact's worker, one after the other: load, first run
    2. warm up, in rounds, until each one's times have settled
    3. measure, in rounds: every artifact runs once per round, the order changing from round to round
    4. ask for the peak of memory, and end the workers

Only one artifact runs at any time, so they do not compete with each other; and since they take turns,
whatever else the machine does hits all of them alike. A worker that fails, dies or hangs is a failure of
its artifact and takes no part in the rest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tqdm import tqdm

from benchmarks.timing.worker_handle import Artifact, Times, Worker, WorkerFailed

WARM_UP_WINDOW = 5  # runs; times have settled when the medians of the last two windows agree ...
WARM_UP_TOLERANCE = 0.03  # ... to this share
WARM_UP_MOST = 50  # runs, after which a noisy machine has to do
FEWEST_ROUNDS = 10  # measured however short the time limit is: fewer say nothing


@dataclass
class Measured:
    """What was found out about one artifact.

    Attributes:
        artifact: The file.
        facts: What its worker reported when it was ready.
        warm_up: Its runs before the measured ones.
        steady: Whether they settled.
        times: Its measured runs, one per round.
        peak_kib: Highest resident memory of the worker since just before it loaded the file.
        failure: Why there is no result, or None.
    """

    artifact: Artifact
    facts: dict[str, Any] = field(default_factory=dict)
    warm_up: list[Times] = field(default_factory=list)
    steady: bool = False
    times: list[Times] = field(default_factory=list)
    peak_kib: int | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Session:
    """The measurements of all artifacts with one number of threads, and how long the rounds took in all."""

    threads: int
    measured: list[Measured]
    rounds_s: float

    @property
    def overhead(self) -> float | None:
        """Time of the rounds that was not spent in a timed run, as a share of that which was.

        With several threads it includes waiting for those of the last run to go to sleep.
        """
        timed = sum(wall for one in self.measured for wall, _ in one.times)
        return self.rounds_s / timed - 1 if timed else None


def measure(
    artifacts: Sequence[Artifact], *, threads: int, repeats: int, seconds: float, time_out: float
) -> Session:
    """Times artifacts against each other.

    Args:
        artifacts: What to time.
        threads: How many threads each run may use.
        repeats: Rounds to measure.
        seconds: Begin no further round after so long, but measure at least `FEWEST_ROUNDS`.
        time_out: Seconds after which a worker that does not answer counts as hung.
    """
    measured = [Measured(artifact) for artifact in artifacts]
    with ExitStack() as stack:
        pairs = []
        for one in measured:
            _say(f"{one.artifact.label}: loading")
            pairs.append((one, stack.enter_context(Worker(one.artifact, threads, time_out))))
            _guarded(*pairs[-1], _start)
        _say("warming up")
        _warm_up(pairs, threads)
        start = time.perf_counter()
        _measure_rounds(pairs, repeats, seconds)
        rounds_s = time.perf_counter() - start
        for one, worker in pairs:
            _guarded(one, worker, _ask_peak)
    return Session(threads, measured, rounds_s)


def judge(threads: int) -> str:
    """Returns which times verdicts rest on: ``cpu``, those of the processor, or ``wall``, by the clock.

    One thread that computes without pause needs the same processor time however many others it shares
    the core with, while its time by the clock is theirs too. Of several threads the processor time says
    nothing about speed (it counts their waiting for each other in a loop), so the clock decides.
    """
    return "cpu" if threads == 1 else "wall"


def judged(times: Sequence[Times], threads: int) -> list[float]:
    """Returns the times that verdicts rest on."""
    return [cpu if judge(threads) == "cpu" else wall for wall, cpu in times]


def _start(one: Measured, worker: Worker) -> None:
    one.facts = worker.ready()


def _ask_peak(one: Measured, worker: Worker) -> None:
    one.peak_kib = worker.peak_kib()


def _guarded(one: Measured, worker: Worker, step: Any) -> None:
    """Does ``step(one, worker)`` unless the artifact has failed before; notes it if it fails now."""
    if one.failure is not None:
        return
    try:
        step(one, worker)
    except WorkerFailed as error:
        one.failure = str(error)
        worker.process.kill()
        worker.process.wait()
        _say(f"{one.artifact.label}: {error}\n{worker.last_words()}".rstrip())


def _warm_up(pairs: Sequence[tuple[Measured, Worker]], threads: int) -> None:
    def step(one: Measured, worker: Worker) -> None:
        one.warm_up.append(worker.run(len(one.warm_up)))
        one.steady = _settled(judged(one.warm_up, threads))

    for _ in range(WARM_UP_MOST):
        for one, worker in pairs:
            if not one.steady:
                _guarded(one, worker, step)


def _settled(times: Sequence[float]) -> bool:
    if len(times) < 2 * WARM_UP_WINDOW:
        return False
    earlier, later = times[-2 * WARM_UP_WINDOW : -WARM_UP_WINDOW], times[-WARM_UP_WINDOW:]
    return abs(median(later) / median(earlier) - 1) <= WARM_UP_TOLERANCE


def _measure_rounds(pairs: Sequence[tuple[Measured, Worker]], repeats: int, seconds: float) -> None:
    deadline = time.perf_counter() + seconds
    for index in tqdm(range(repeats), desc="rounds", file=sys.stderr, disable=None):
        if all(one.failure for one, _ in pairs):
            break
        if index >= FEWEST_ROUNDS and time.perf_counter() > deadline:
            break

        def step(one: Measured, worker: Worker, clip: int = index) -> None:
            one.times.append(worker.run(clip))

        for position in order_of_round(index, len(pairs)):
            _guarded(*pairs[position], step)


def order_of_round(index: int, count: int) -> list[int]:
    """Returns who runs when: one further each round, and backwards every other time round.

    So each runs first, last, and after each of its neighbours, equally often.
    """
    first = index % count
    order = [*range(first, count), *range(first)]
    return order[::-1] if index // count % 2 else order


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
