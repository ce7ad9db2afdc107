"""Recordings to score, by the names that they have in a table, and the rows of one."""

from __future__ import annotations

from pathlib import Path

import soundfile

from antispoof.audio import SAMPLE_RATE
from antispoof.speechlike import speech_like

NAMES = ["a.wav", "b/c.FLAC", "b/d e.wav", "é.ogg"]  # in the order of a folder's table


def write(path: Path, seed: int, seconds: float = 1.0) -> Path:
    """Writes a sound file of speech, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speech_like(seed, int(seconds * SAMPLE_RATE)), SAMPLE_RATE)
    return path


def rows_of(text: str) -> list[list[str]]:
    """The cells of a table, line by line."""
    assert text.endswith("\n")
    return [line.split("\t") for line in text[:-1].split("\n")]
