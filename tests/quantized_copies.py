"""Quantized copies for tests, by the command, calibrated on a few generated recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from antispoof.audio import SAMPLE_RATE
from antispoof.speechlike import speech_like
from benchmarks.results_file import gather_conditions

Command = Callable[[list[str]], int]
# On x86 without VNNI, sums of two products saturate in 16 bits where weights have all 8.
FULL_RANGE = pytest.mark.skipif(
    not {"avx_vnni", "avx512_vnni", "asimd"} & set(gather_conditions()["cpu"]["flags"]),
    reason="weights of 8 bits saturate on this processor, which has no VNNI",
)


def write_recordings(folder: Path, count: int, samples: int) -> Path:
    """Writes a few clips to calibrate on; returns their folder."""
    for index in range(count):
        soundfile.write(folder / f"{index}.wav", speech_like(index, samples), SAMPLE_RATE)
    return folder


def quantize(command: Command, source: Path, recipe: str, recordings: Path, folder: Path) -> Path:
    """Returns the copy that a command makes of a model file."""
    flags = ["--calibration", "all", "--audio", str(recordings), "--out", str(folder), "--force"]
    assert command([str(source), "--recipe", recipe, *flags]) == 0
    return folder / f"{source.stem}.{recipe}{source.suffix}"
