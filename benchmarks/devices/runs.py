"""What a runner on a device is asked and must answer, and when its times count.

A runner is a program that is called as

    RUNNER --model FILE --clips FILE --samples N --threads T --runs R

loads the model, scores every clip of the file (raw little-endian float32, N samples each) in its own run,
then runs R more times over the clips in turn, and prints one JSON object:

    {"runner": "its name and version", "library": "onnxruntime 1.31.1",
     "scores": [one for each clip], "load_ms": 12.3, "first_ms": 45.6, "times_ms": [R numbers],
     "peak_rss_kib": 123456}

with exit code 0, or fails with another and a line on stderr. Times are of the run alone, by a steady clock.
android_demo/native/runner is one, for ONNX files; it finds the names of input and output in the manifest that
is pushed beside the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from antispoof.errors import CheckFailed, UserError
from antispoof.manifest_reader import read_manifest
from antispoof.speechlike import speech_like_batch
from benchmarks.timing.ratios import kept_times, percentiles
from runtimes import load
from runtimes.golden import Golden, golden_paths, golden_tolerance, read_golden, write_golden

KIND = "on-device"  # of a results file with such figures
GOLDEN_CLIPS = 8
STEADY = 0.03  # the medians of two blocks in a row agree to this share
Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a runner printed."""

    runner: str
    library: str
    scores: tuple[float, ...]
    load_ms: float
    first_ms: float
    times_ms: tuple[float, ...]
    peak_rss_kib: int


def parse_answer(text: str, clips: int, runs: int) -> Answer:
    """Returns a runner's answer.

    Raises:
        UserError: It is not what a runner must print.
    """
    try:
        facts = json.loads(text)
        answer = Answer(
            str(facts["runner"]),
            str(facts["library"]),
            tuple(map(float, facts["scores"])),
            float(facts["load_ms"]),
            float(facts["first_ms"]),
            tuple(map(float, facts["times_ms"])),
            int(facts["peak_rss_kib"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise UserError(f"the runner printed no result ({type(error).__name__}: {error})") from None
    numbers = (answer.load_ms, answer.first_ms, *answer.times_ms)
    if not all(0 <= number < float("inf") for number in numbers) or answer.peak_rss_kib < 0:
        raise UserError("the runner printed times that are no times")
    if len(answer.scores) != clips or len(answer.times_ms) != runs:
        counts = f"{len(answer.scores)} scores and {len(answer.times_ms)} times"
        raise UserError(f"the runner printed {counts}, not {clips} and {runs}")
    return answer


def runner_arguments(model: str, clips: str, golden: Golden, threads: int, runs: int) -> list[str]:
    """Returns what a runner is called with."""
    return [
        *("--model", model, "--clips", clips, "--samples", str(golden.samples)),
        *("--threads", str(threads), "--runs", str(runs)),
    ]


def golden_for(artifact: Path, folder: Path) -> tuple[Golden, Path]:
    """Returns the golden scores of a file and the path of their clips.

    Those beside the file, if there are any; else speech-like clips are written into ``folder``, and the file
    is scored here.
    """
    if golden_paths(artifact)[0].exists():
        golden, _ = read_golden(artifact)
        return golden, golden_paths(artifact)[1]
    manifest = read_manifest(artifact)
    clips = speech_like_batch(GOLDEN_CLIPS, manifest.input.samples)
    scores = load(artifact).score(clips)
    golden = write_golden(
        folder / artifact.name,
        clips,
        scores,
        names=(manifest.input.name, manifest.output.name),
        tolerance=golden_tolerance(artifact, manifest),
    )
    return golden, golden_paths(folder / artifact.name)[1]


def check_scores(answer: Answer, golden: Golden) -> float:
    """Returns the largest difference of a device's scores from the golden ones.

    Raises:
        CheckFailed: One is off by more than the tolerance; nothing of such a device is worth timing.
    """
    difference = np.abs(np.array(answer.scores) - np.array(golden.scores))
    worst = int(np.argmax(difference))
    if difference[worst] <= golden.tolerance:  # never, if it is NaN
        return float(difference[worst])
    raise CheckFailed(
        f"golden clip {worst} of {golden.clips} scores {answer.scores[worst]:.6f} on the device instead of "
        f"{golden.scores[worst]:.6f} (allowed: {golden.tolerance:g}); nothing was timed"
    )


@dataclass(frozen=True)
class Block:
    """Runs in a row, and how hot the device was around them: its thermal status, None where unknown."""

    answer: Answer
    thermal_before: int | None
    thermal_after: int | None

    @property
    def counts(self) -> bool:
        """Whether the device ran as fast as it can, or may have been throttled."""
        return not self.thermal_before and not self.thermal_after


def is_steady(blocks: Sequence[Block]) -> bool:
    """Tells whether the last two blocks count and agree."""
    if len(blocks) < 2 or not all(block.counts for block in blocks[-2:]):
        return False
    earlier, later = (median(block.answer.times_ms) for block in blocks[-2:])
    return abs(later - earlier) <= STEADY * earlier


def figures(blocks: Sequence[Block]) -> Row:
    """Returns the times of the blocks that count, of the steady ones alone where there are any.

    Raises:
        CheckFailed: The device was too hot in all of them.
    """
    counted = [block for block in blocks if block.counts]
    if not counted:
        raise CheckFailed("the device was throttling in every block of runs; let it cool down and try again")
    used = counted[-2:] if is_steady(blocks) else counted
    times = [time for block in used for time in block.answer.times_ms]
    return {
        "steady": is_steady(blocks),
        "blocks": {"run": len(blocks), "hot": len(blocks) - len(counted), "used": len(used)},
        "ms": percentiles(times) | {"least": min(times), "runs": len(times)},
        "load_ms": median(block.answer.load_ms for block in counted),
        "first_run_ms": median(block.answer.first_ms for block in counted),
        "peak_rss_mib": max(block.answer.peak_rss_kib for block in counted) / 1024,
        "runner": blocks[0].answer.runner,
        "library": blocks[0].answer.library,
        "times_ms": kept_times(times),
    }
