"""Remembers on disk what detectors said of clips, so that a measurement is gone on with and not begun again.

The memory of one detector on one list of clips is a text file of lines ``name <tab> score``. Lines are added
as clips are scored, so an interrupted run goes on where it stopped and a repeated one is done at once. On
another processor, or with another version of a runtime or a decoder, nothing is remembered.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from antispoof.errors import UserError
from benchmarks.results_file import surroundings


def remembered_scores(
    folder: Path | None,
    key: str,
    names: Sequence[str],
    score: Callable[[Sequence[int]], Iterable[float]],
    *,
    at_once: int = 1,
    title: str | None = None,
) -> np.ndarray:
    """Returns the scores ``(clips,)`` in float64, computing those that are not yet remembered.

    Args:
        folder: Where memories lie; made where it is missing. None remembers nothing.
        key: All that the scores depend on but for the surroundings; names the file with them.
        names: Of the clips. Clips of one name have one score.
        score: Returns the scores of clips, given their places in ``names``.
        at_once: How many clips it is asked for.
        title: What the progress bar is called; there is none without it.

    Raises:
        UserError: The memory is damaged or cannot be written.
    """
    whole = f"{surroundings()}\n{key}"
    file = None if folder is None else folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:32]}.tsv"
    known = {} if file is None else _open(file)
    todo = [place for place, name in enumerate(names) if name not in known]
    with tqdm(total=len(todo), desc=title, unit="clip", disable=None if title else True) as bar:
        for first in range(0, len(todo), at_once):
            places = todo[first : first + at_once]
            new = {names[place]: float(one) for place, one in zip(places, score(places), strict=True)}
            known |= new
            if file is not None:
                with file.open("a", encoding="utf-8") as lines:
                    lines.writelines(f"{name}\t{one!r}\n" for name, one in new.items())
            bar.update(len(places))
    return np.array([known[name] for name in names])


def _open(file: Path) -> dict[str, float]:
    """Returns the scores in a memory that lines may then be added to."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as lines:
            lines.seek(0)
            text = lines.read()
            whole = text.rpartition(b"\n")[0]
            lines.truncate(len(whole) + 1 if whole else 0)  # a line that an interruption cut off
    except OSError as error:
        raise UserError(f"cannot remember scores in {file.parent}: {error.strerror}") from error
    try:
        rows = [line.rpartition("\t") for line in whole.decode().split("\n")] if whole else []
        known = {name: float(score) for name, _, score in rows}
    except ValueError:
        raise UserError(f"{file} is damaged: delete it") from None
    if not all(math.isfinite(score) for score in known.values()):
        raise UserError(f"{file} holds scores that are not numbers: delete it")
    return known
