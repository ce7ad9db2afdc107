"""The recordings of a run: which rows of a list may be used, and their samples in memory.

The list is tab-separated with a header: path, label (bonafide, spoof, noise or unlabelled) and split (train,
dev, ...); dataset, attack, licence and source (what a copy was made of) where they are known.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from antispoof.audio import load_audio
from antispoof.errors import UserError
from antispoof.protocols import AUDIO_SUFFIXES, BONAFIDE, NOISE, SPOOF, UNKNOWN
from antispoof.text_tables import header_columns, split_fields, text_lines
from train.recipe import DataRecipe

CLASSES = (SPOOF, BONAFIDE)  # in the order of the logits
UNLABELLED = "unlabelled"  # speech that only teachers have an opinion of
REFUSED_SHOWN = 3  # of the recordings that are complained of
INT16_SCALE = 32_768
LISTED = ("path", "label", "split", "dataset", "attack", "licence", "source")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    path: str
    label: str
    split: str
    dataset: str = UNKNOWN
    attack: str = UNKNOWN
    licence: str = ""
    source: str = UNKNOWN  # path of the recording that this one is a copy of
    folder: Path = Path()  # where paths start; not of the list


def read_rows(path: Path, folder: Path = Path()) -> list[Row]:
    """Returns every line of a list, noise included, in the order of the file.

    Args:
        path: The list.
        folder: Where its paths start.

    Raises:
        UserError: The file cannot be read, lacks a column, a line does not fit its header, or two lines are
            of one recording.
    """
    lines = text_lines(path)
    columns: dict[str, int] | None = None
    rows = []
    seen: dict[str, int] = {}
    for number, line in lines:
        fields = split_fields(line, "\t")
        if columns is None:
            try:
                columns = header_columns(fields)
            except ValueError as error:
                raise UserError(f"{path}:{number}: {error}") from None
            missing = [name for name in ("path", "label", "split") if name not in columns]
            if missing:
                raise UserError(
                    f"{path}: the header lacks the column {missing[0]!r}; columns are separated by tabs"
                )
        elif len(fields) != len(columns):
            raise UserError(f"{path}:{number}: {len(fields)} columns where the header has {len(columns)}")
        else:
            known = {name: fields[columns[name]] for name in LISTED if name in columns}
            row = Row(**known, folder=folder)
            if row.label not in (*CLASSES, NOISE, UNLABELLED):
                known_labels = ", ".join((*CLASSES, NOISE, UNLABELLED))
                raise UserError(f"{path}:{number}: the label {row.label!r} is none of {known_labels}")
            if seen.setdefault(row.path, number) != number:
                raise UserError(
                    f"{path}:{number}: {row.path} is in the list already, in line {seen[row.path]}"
                )
            rows.append(row)
    return rows


def read_lists(audio: Path, protocol: Path | None, more: Iterable[Path]) -> tuple[list[Row], list[Row]]:
    """Returns the lines of a list, by default the one in ``audio``, and those of folders of copies.

    Raises:
        UserError: One of the lists is missing or broken.
    """
    copies = [row for folder in more for row in read_rows(folder / "manifest.tsv", folder)]
    return read_rows(protocol or audio / "manifest.tsv", audio), copies


def may_train(row: Row, recipe: DataRecipe) -> bool:
    """Says whether a model that is given away may be trained on a recording.

    Unmodified recordings of a free corpus stay free on whichever page they are found, so for bona fide
    speech the corpus counts before the words of the page.
    """
    if row.label == BONAFIDE and any(corpus in row.licence for corpus in recipe.free_recordings):
        return True
    if any(words in row.licence for words in recipe.refuse_licences):
        return False
    return not recipe.folders or row.path.startswith(recipe.folders)


def training_rows(
    rows: Sequence[Row], recipe: DataRecipe, copies: Iterable[Row] = ()
) -> tuple[list[Row], list[Row], list[Row]]:
    """Returns speech to train on, additive noise and impulse responses, of the train split alone.

    Args:
        rows: The list of the recordings.
        recipe: Which of them may be used.
        copies: Made of those that may be used, so only their split counts.

    Raises:
        UserError: A class has no recording left, or a copy is of a recording that is not to be trained on.
    """
    allowed = [row for row in rows if row.split == "train" and may_train(row, recipe)]
    speech = [row for row in allowed if row.label in CLASSES]
    copied = [row for row in copies if row.split == "train" and row.label in CLASSES]
    _check_sources(copied, rows)
    speech += copied
    sounds = [row for row in allowed if row.label == NOISE]
    noise = [row for row in sounds if row.path.startswith(recipe.noise_folders)]
    rooms = [row for row in sounds if row.path.startswith(recipe.room_folders)]
    for label in CLASSES:
        if not any(row.label == label for row in speech):
            check_usable(rows, label, recipe)
    return speech, noise, rooms


def check_usable(rows: Iterable[Row], label: str, recipe: DataRecipe) -> None:
    """Refuses a list of which no recording of a class may be trained on.

    Raises:
        UserError: None may, and why.
    """
    listed = [row for row in rows if row.split == "train" and row.label == label]
    if not listed:
        raise UserError(f"the list has no {label} recording in the split train")
    if any(may_train(row, recipe) for row in listed):
        return
    if any(row.path.startswith(recipe.folders or "") for row in listed):
        why = "data.refuse_licences in the recipe holds words of their licences"
    else:
        why = f"they are in none of the recipe's data.folders, {', '.join(recipe.folders)}"
    raise UserError(f"no {label} recording of the train split may be used: {why}")


def _check_sources(copies: Iterable[Row], rows: Iterable[Row]) -> None:
    """Refuses copies made before their originals went to another split."""
    elsewhere = {row.path: row.split for row in rows if row.split != "train"}
    for copy in copies:
        if copy.source in elsewhere:
            raise UserError(
                f"{copy.folder / copy.path} was made of {copy.source}, which the list has in the split "
                f"{elsewhere[copy.source]}: make the copies of this list"
            )


def check_apart(rows: Sequence[Row], clips: Sequence[np.ndarray]) -> None:
    """Refuses recordings that are there twice, under other names, in two splits or with two labels.

    Raises:
        UserError: Some are, all of which are counted.
    """
    known: dict[bytes, Row] = {}
    twice = []
    for row, clip in zip(rows, clips, strict=True):
        other = known.setdefault(hashlib.sha256(clip.tobytes()).digest(), row)
        if other.split != row.split or {other.label, row.label} == set(CLASSES):
            twice.append(
                f"{other.path} ({other.label}, {other.split}) and {row.path} ({row.label}, {row.split}) "
                "are the same recording: leave one out"
            )
    refuse_all(twice, "recordings are there twice")


def unlabelled_rows(folder: Path) -> list[Row]:
    """Returns speech to hear without its labels: the train split of a folder's list, or all its audio.

    Raises:
        UserError: There is none.
    """
    if (folder / "manifest.tsv").exists():
        listed = read_rows(folder / "manifest.tsv", folder)
        rows = [row for row in listed if row.split == "train" and row.label != NOISE]
    else:
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
        rows = [Row(str(path.relative_to(folder)), UNLABELLED, "train", folder=folder) for path in found]
    if not rows:
        raise UserError(f"{folder} holds no audio to learn from")
    return [replace(row, label=UNLABELLED) for row in rows]


def decode(
    rows: Sequence[Row], watch: Callable[[Sequence[Row]], Iterable[Row]], folder: Path | None = None
) -> list[np.ndarray]:
    """Returns every recording as (samples,) int16, which takes half the memory of float32.

    Args:
        rows: What to read.
        watch: Wraps the rows to show the progress, as ``tqdm`` does.
        folder: Where the recordings are kept and mapped into memory from, so that a corpus may be larger than
            it. The system gives their memory away where it is short of it, and the disk's when the process
            ends, whatever ends it: the file has no name.

    Raises:
        UserError: Recordings cannot be used, all of which are counted, or the folder has no room for them.
    """
    if folder is None or not rows:
        return list(_usable(watch(rows)))
    sizes = []
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for clip in _usable(watch(rows)):
                file.write(clip.tobytes())
                sizes.append(len(clip))
            file.flush()
            everything = np.memmap(file, np.int16, "r") if sum(sizes) else np.empty(0, np.int16)
    except OSError as error:
        raise UserError(f"{folder} cannot keep the decoded recordings: {error.strerror or error}") from error
    return np.split(everything, np.cumsum(sizes)[:-1])


def _usable(rows: Iterable[Row]) -> Iterator[np.ndarray]:
    """Yields every recording, and tells at the end of those that are none, lest each cost an attempt."""
    refused = []
    for row in rows:
        try:
            yield _samples(row)
        except UserError as error:
            refused.append(str(error))
    refuse_all(refused, "recordings cannot be used")


def refuse_all(complaints: Sequence[str], what: str) -> None:
    """Raises `UserError` where there are complaints: how many, and the first of them."""
    if len(complaints) == 1:
        raise UserError(complaints[0])
    if complaints:
        shown = "; ".join(complaints[:REFUSED_SHOWN])
        more = "; ..." if len(complaints) > REFUSED_SHOWN else ""
        raise UserError(f"{len(complaints):,} {what}: {shown}{more}")


def _samples(row: Row) -> np.ndarray:
    scaled = np.rint(load_audio(row.folder / row.path) * INT16_SCALE)
    return np.clip(scaled, -INT16_SCALE, INT16_SCALE - 1).astype(np.int16)


def fingerprint(clips: Iterable[np.ndarray]) -> str:
    """Returns a sha256 of recordings and their order, to tell whether a run is resumed on the same ones."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(len(clip).to_bytes(8, "little"))
        digest.update(clip.tobytes())
    return digest.hexdigest()


def check_split(rows: Sequence[Row], split: str) -> None:
    """Refuses a split in which a class is missing.

    Raises:
        UserError: One is.
    """
    if not {row.label for row in rows if row.split == split} >= set(CLASSES):
        raise UserError(f"the list has no trials of both classes in the split {split!r}")
