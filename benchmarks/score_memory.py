"""Remembers on disk what detectors said of clips, so that a measurement is gone on with and not begun again.

The memory of one detector on one list of clips is a text file with a line for each clip. Lines are added as
clips are scored, so an interrupted run goes on where it stopped and a repeated one is done at once. On
another processor, or with another version of a runtime or a decoder, nothing is remembered.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from tqdm import tqdm

from antispoof.errors import UserError
from benchmarks.results_file import surroundings

Value = TypeVar("Value")


@dataclass(frozen=True)
class Lines(Generic[Value]):
    """How what a detector said of a clip becomes a line of text.

    Attributes:
        suffix: Of the file.
        write: Returns a line, without its end, given the clip's name and what was said.
        read: Returns both, given the line; a ``ValueError`` or ``TypeError`` if it is none.
    """

    suffix: str
    write: Callable[[str, Value], str]
    read: Callable[[str], tuple[str, Value]]


def _score_of(line: str) -> tuple[str, float]:
    name, _, text = line.rpartition("\t")
    score = float(text)
    if not math.isfinite(score):
        raise ValueError(f"{score} is no score")
    return name, score


SCORES = Lines(".tsv", lambda name, score: f"{name}\t{score!r}", _score_of)


def remembered_scores(
    folder: Path | None,
    key: str,
    names: Sequence[str],
    score: Callable[[Sequence[int]], Iterable[float]],
    *,
    at_once: int = 1,
    title: str | None = None,
) -> np.ndarray:
    """Returns the scores ``(clips,)`` in float64. Arguments and errors are those of `remembered`."""

    def floats(places: Sequence[int]) -> Iterable[float]:
        return map(float, score(places))

    return np.array(remembered(folder, key, names, floats, SCORES, at_once=at_once, title=title))


def remembered(
    folder: Path | None,
    key: str,
    names: Sequence[str],
    ask: Callable[[Sequence[int]], Iterable[Value]],
    lines: Lines[Value],
    *,
    at_once: int = 1,
    title: str | None = None,
) -> list[Value]:
    """Returns what a detector says of each clip, asking it for what is not yet remembered.

    Args:
        folder: Where memories lie; made where it is missing. None remembers nothing.
        key: All that the answers depend on but for the surroundings; names the file with them.
        names: Of the clips. Clips of one name have one answer.
        ask: Returns the answers of clips, given their places in ``names``.
        lines: How answers are written.
        at_once: How many clips it is asked for.
        title: What the progress bar is called; there is none without it.

    Raises:
        UserError: The memory is damaged or cannot be written.
    """
    whole = f"{surroundings()}\n{key}"
    stem = hashlib.sha256(whole.encode()).hexdigest()[:32]
    file = None if folder is None else folder / f"{stem}{lines.suffix}"
    known = {} if file is None else _open(file, lines)
    todo = [place for place, name in enumerate(names) if name not in known]
    with tqdm(total=len(todo), desc=title, unit="clip", disable=None if title else True) as bar:
        for first in range(0, len(todo), at_once):
            places = todo[first : first + at_once]
            new = {names[place]: one for place, one in zip(places, ask(places), strict=True)}
            known |= new
            if file is not None:
                with file.open("a", encoding="utf-8") as kept:
                    kept.writelines(f"{lines.write(name, one)}\n" for name, one in new.items())
            bar.update(len(places))
    return [known[name] for name in names]


def _open(file: Path, lines: Lines[Value]) -> dict[str, Value]:
    """Returns what is in a memory that lines may then be added to."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as kept:
            kept.seek(0)
            text = kept.read()
            whole = text.rpartition(b"\n")[0]
            kept.truncate(len(whole) + 1 if whole else 0)  # a line that an interruption cut off
    except OSError as error:
        raise UserError(f"cannot remember scores in {file.parent}: {error.strerror}") from error
    try:
        return dict(map(lines.read, whole.decode().split("\n"))) if whole else {}
    except (ValueError, TypeError):
        raise UserError(f"{file} is damaged: delete it") from None
