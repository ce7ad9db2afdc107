"""Chooses which file to ship on which target and says why, and what got worse since an earlier bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from antispoof.bootstrap import Interval, eer_difference
from antispoof.formats import format_named
from benchmarks.timing.ratios import SLOWER, ratio_interval, verdict

TARGETS = {"servers and desktops": "Linux", "Android": "Android", "iOS": "iOS", "browsers": "browsers"}
LARGER = 1.03  # a file or a peak of memory beyond this is worse, and not another layout of the same
UNTIMED = ("coreml",)  # formats that no time can be taken of on this machine


@dataclass(frozen=True)
class Candidate:
    """A file and what was found out about it.

    Attributes:
        label: Its name.
        format: Of the file.
        kib: Its size.
        times: Seconds of its runs, in the rounds of all; empty where it was not timed.
        peak_mib: Peak of memory; None where unknown.
        trusted: Whether its scores may stand for PyTorch's.
        accuracy: Why, or why not, in words.
        eer: A fraction; None where there were no trials.
    """

    label: str
    format: str
    kib: float
    times: tuple[float, ...]
    peak_mib: float | None
    trusted: bool
    accuracy: str
    eer: float | None = None

    @property
    def milliseconds(self) -> float:
        """Its median time."""
        return 1e3 * median(self.times)

    def runs_on(self, platform: str) -> bool:
        """Tells whether such a file runs there."""
        # PyTorch itself is what is exported from, not what is shipped.
        return self.format != "torch" and platform in format_named(self.format).platforms


def choose(candidates: Sequence[Candidate], platform: str) -> tuple[Candidate, list[Candidate]] | None:
    """Returns the file to ship on a platform, and those that are as fast; None where none may be shipped.

    Of the trusted files the fastest. Those that are not measurably slower win where they take less memory;
    where neither time nor memory tells, the first of them.
    """
    fit = [one for one in candidates if one.trusted and one.times and one.runs_on(platform)]
    if not fit:
        return None
    fastest = min(fit, key=lambda one: median(one.times))
    equal = [one for one in fit if verdict(ratio_interval(one.times, fastest.times)) != SLOWER]
    best = equal[0]
    for one in equal[1:]:
        if one.peak_mib is not None and one.peak_mib < (best.peak_mib or 0) / LARGER:
            best = one
    return best, [one for one in equal if one is not best]


def sentences(candidates: Sequence[Candidate], reference: str) -> list[str]:
    """Returns the verdict: a sentence for the targets of each file, one for each that may not be shipped.

    Args:
        candidates: All files, and PyTorch itself.
        reference: The label of PyTorch.
    """
    base = next((one for one in candidates if one.label == reference and one.times), None)
    targets: dict[str, list[str]] = {}
    for target, platform in TARGETS.items():
        chosen = choose(candidates, platform)
        why = "none of the files." if chosen is None else _praise(*chosen, base)
        targets.setdefault(why + _elsewhere(candidates, platform), []).append(target)
    lines = [f"{', '.join(names)}: {why}" for why, names in targets.items()]
    return lines + [f"Not {one.label}: {one.accuracy}." for one in candidates if not one.trusted]


def _praise(best: Candidate, equal: Sequence[Candidate], base: Candidate | None) -> str:
    memory = "" if best.peak_mib is None else f", {best.peak_mib:.0f} MiB at its peak"
    ratio = ""
    if base is not None:
        ratio = f", {ratio_interval(best.times, base.times).estimate:.2f} of PyTorch's"
    others = f"; as fast as {', '.join(one.label for one in equal)}" if equal else ""
    return (
        f"{best.label}: {best.milliseconds:.3g} ms a clip on this machine{ratio}, {best.kib:,.0f} KiB"
        f"{memory}; {best.accuracy}{others}."
    )


def _elsewhere(candidates: Sequence[Candidate], platform: str) -> str:
    """Names the files for a platform that cannot be timed here."""
    names = [
        one.label for one in candidates if one.format in UNTIMED and one.trusted and one.runs_on(platform)
    ]
    return (
        f" ({', '.join(names)} is made and checked, but its speed is for a device to say.)" if names else ""
    )


@dataclass(frozen=True)
class Scores:
    """Scores of two versions on the same trials, ``(trials,)`` each, and which are bona fide."""

    new: np.ndarray
    old: np.ndarray
    is_bonafide: np.ndarray


@dataclass(frozen=True)
class Change:
    """How a file compares with the one of its name from an earlier bench, timed in the same rounds.

    Attributes:
        label: Its name.
        time: Ratio of its time to the old one's.
        eer: Difference of the EERs, new minus old; None where there are no trials.
        size: Ratio of the sizes.
        memory: Ratio of the peaks of memory; None where unknown.
    """

    label: str
    time: Interval
    eer: Interval | None
    size: float
    memory: float | None

    @property
    def regressions(self) -> list[str]:
        """What got worse by more than noise."""
        worse = []
        if verdict(self.time) == SLOWER:
            worse.append(
                f"{self.time.estimate:.2f} times the time ({self.time.low:.2f} to {self.time.high:.2f})"
            )
        if self.eer is not None and self.eer.low > 0:
            worse.append(f"EER {self.eer.estimate:+.1%} ({self.eer.low:+.1%} to {self.eer.high:+.1%})")
        if self.size > LARGER:
            worse.append(f"{self.size:.2f} times the size")
        if self.memory is not None and self.memory > LARGER:
            worse.append(f"{self.memory:.2f} times the memory")
        return worse


def compare(new: Candidate, old: Candidate, scores: Scores | None) -> Change:
    """Returns how a file compares with its earlier version."""
    known = new.peak_mib is not None and old.peak_mib
    return Change(
        new.label,
        ratio_interval(new.times, old.times),
        None if scores is None else eer_difference(scores.new, scores.old, scores.is_bonafide),
        new.kib / old.kib,
        new.peak_mib / old.peak_mib if known and new.peak_mib and old.peak_mib else None,
    )


def regression_lines(changes: Mapping[str, Change]) -> list[str]:
    """Returns a sentence for each file that got worse, or one that says that none did."""
    lines = [
        f"Regression in {label}: {'; '.join(change.regressions)}."
        for label, change in changes.items()
        if change.regressions
    ]
    return lines or ["No regression outside the noise."]
