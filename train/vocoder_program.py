"""Copies by a vocoder that is a program of its own, such as Opus's FARGAN or a codec's reference decoder.

The program is called with two paths more than its command has: that of a recording and that of the copy
that it is to write, both raw 16-bit little-endian mono samples at 16 kHz. A script of two lines makes one of
most vocoders; for FARGAN (Valin et al., arXiv 2405.21069), as Opus 1.5 builds it with --enable-dred:

    fargan_demo -features "$1" "$2.features"
    fargan_demo -fargan-synthesis "$2.features" "$2"
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import signal

from train.program import write_by_program
from train.resynthesis import Resynthesis

LEAD, TAIL = 1_600, 3_200  # samples of silence around a recording, for programs that drop their first frames
STEP = 20  # samples; how finely a copy is laid over its original


@lru_cache(maxsize=8)
def by_program(command: str) -> Resynthesis:
    """Returns a way of copying that runs ``command INPUT OUTPUT``.

    Raises:
        UserError: At each copy: the program is missing, fails, takes over two minutes or writes nothing.
    """
    return laid_over(lambda waveform, _: _run(command, np.rint(waveform * 32_767).astype("<i2")))


def laid_over(make: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Resynthesis:
    """Returns a way of copying by what makes a copy of speech at an ordinary level, with silence around it.

    The copy is laid over the original by their loudness, since vocoders start late and look ahead.
    """

    def copy(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
        peak = float(np.abs(waveform).max()) or 1.0
        padded = np.pad(waveform * (generator.uniform(0.2, 0.9) / peak), (LEAD, TAIL))
        made = make(padded.astype(np.float32), generator)
        late = _lag(made, padded)
        made = np.pad(made[max(late, 0) :], (max(-late, 0), len(padded)))
        return made[LEAD : LEAD + len(waveform)]

    return copy


def _run(command: str, samples: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "original.pcm", Path(folder) / "copy.pcm"
        given.write_bytes(samples.tobytes())
        write_by_program([*shlex.split(command), given, made], made)
        content = made.read_bytes()
    return np.frombuffer(content[: len(content) // 2 * 2], "<i2").astype(np.float32) / 32_768


def _lag(made: np.ndarray, original: np.ndarray) -> int:
    """Returns how many samples a copy comes late, negative where it comes early."""
    late, true = (_loudness(x) for x in (made, original))
    if not len(late):
        return 0
    likeness = signal.correlate(late, true)
    return (int(np.argmax(likeness)) - (len(true) - 1)) * STEP


def _loudness(x: np.ndarray) -> np.ndarray:
    power = np.convolve(np.square(x, dtype=np.float64), np.ones(160) / 160, "same") if len(x) >= 160 else x
    return np.sqrt(power)[::STEP]
