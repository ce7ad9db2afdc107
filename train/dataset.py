"""The recordings of a run: which rows of a list may be used, their samples in memory, and each step's batch.

The list is tab-separated with a header: path, label (bonafide, spoof, noise or unlabelled) and split (train,
dev, ...); dataset, attack, licence and source (what a copy was made of) where they are known.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from antispoof.audio import load_audio
from antispoof.errors import UserError
from antispoof.protocols import AUDIO_SUFFIXES, BONAFIDE, NOISE, SPOOF, UNKNOWN
from antispoof.text_tables import header_columns, split_fields, text_lines
from train.augment import Augmentation, crop_start, cut, random_crop
from train.recipe import DataRecipe

CLASSES = (SPOOF, BONAFIDE)  # in the order of the logits
UNLABELLED = "unlabelled"  # speech that only teachers have an opinion of
NO_LABEL = -1  # of such a crop
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
    _refuse(twice, "recordings are there twice")


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
    _refuse(refused, "recordings cannot be used")


def _refuse(complaints: Sequence[str], what: str) -> None:
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


def draw_probabilities(rows: Sequence[Row], weights: dict[str, float]) -> np.ndarray:
    """Returns how likely each recording of one class is drawn, (rows,), summing to one.

    A recording counts 1 / sqrt(size of its data set), so that neither the largest collection nor the
    smallest decides what the class sounds like.
    """
    sizes = Counter(row.dataset for row in rows)
    counts = {dataset: weight_of(dataset, weights) / np.sqrt(size) for dataset, size in sizes.items()}
    shares = np.array([counts[row.dataset] for row in rows])
    return shares / shares.sum()


def weight_of(dataset: str, weights: dict[str, float]) -> float:
    """Returns what is said of a data set by its name, else by the longest pattern that fits it, else 1."""
    patterns = [pattern for pattern in weights if fnmatchcase(dataset, pattern)]
    return weights.get(dataset, weights[max(patterns, key=len)] if patterns else 1.0)


class Batch(NamedTuple):
    """Crops and what is known of them.

    Attributes:
        waveforms: (batch, samples) float32.
        labels: (batch,), index of each crop's class, or `NO_LABEL`.
        clips: (batch,), number of the recording that each crop is of.
    """

    waveforms: Tensor
    labels: Tensor
    clips: Tensor


class Batches:
    """The batches of a run by number: the same seed and step give the same batch, whatever came before."""

    def __init__(
        self,
        rows: Sequence[Row],
        clips: Sequence[np.ndarray],
        recipe: DataRecipe,
        augment: Augmentation,
        seed: int,
        unlabelled_share: float = 0.0,
        untouched_share: float = 0.0,
    ) -> None:
        self._clips, self._augment, self._seed = clips, augment, seed
        self.crop_samples, self._pair_share = recipe.crop_samples, recipe.pair_share
        self._unlabelled_share, self._untouched_share = unlabelled_share, untouched_share
        self._pairs = pairs_to_draw(rows, recipe)
        paired = {copy for pairs in self._pairs.values() for _, copy in pairs}
        self._classes = {}
        for number, label in ((0, SPOOF), (1, BONAFIDE), (NO_LABEL, UNLABELLED)):
            # Copies are drawn with their originals only; alone they teach their own tool marks.
            members = [index for index, row in enumerate(rows) if row.label == label and index not in paired]
            chances = draw_probabilities([rows[index] for index in members], recipe.dataset_weights)
            up_to = np.cumsum(chances)
            self._classes[number] = (np.array(members), up_to / up_to[-1:])

    def batch(self, step: int, size: int) -> Batch:
        """Returns ``size`` crops, both classes equally often, the unlabelled ones last."""
        generator = np.random.default_rng([self._seed, step])
        unlabelled = unlabelled_crops(size, self._unlabelled_share)
        pairs = min(round(self._pair_share * (size - unlabelled) / 2), (size - unlabelled) // 2)
        drawn = [crop for _ in range(pairs) for crop in self._pair(generator)]
        labels = np.arange(size) % len(CLASSES)
        labels[size - unlabelled :] = NO_LABEL
        drawn += [self._single(label, generator) for label in labels[len(drawn) :]]
        waveforms = torch.from_numpy(np.stack([waveform for waveform, _ in drawn]))
        return Batch(waveforms, torch.from_numpy(labels), torch.tensor([clip for _, clip in drawn]))

    def _single(self, label: int, generator: np.random.Generator) -> tuple[np.ndarray, int]:
        """Returns a crop and the number of its recording."""
        members, up_to = self._classes[label]
        # What `Generator.choice` draws, which adds up the chances of all recordings anew for each crop.
        index = int(members[up_to.searchsorted(generator.random(), side="right")])
        crop = random_crop(self._clips[index], self.crop_samples, generator)
        if label == NO_LABEL and generator.random() < self._untouched_share:
            return crop.astype(np.float32) / INT16_SCALE, index
        return self._heard(crop, generator), index

    def _pair(self, generator: np.random.Generator) -> list[tuple[np.ndarray, int]]:
        """Returns a spoofed copy and its original, in the order of the classes."""
        pairs = self._pairs[str(generator.choice(list(self._pairs)))]
        original, copy = pairs[generator.integers(len(pairs))]
        start = crop_start(self._clips[original], self.crop_samples, generator)
        seed = generator.integers(2**63)
        return [
            (
                self._heard(cut(self._clips[index], start, self.crop_samples), np.random.default_rng(seed)),
                index,
            )
            for index in (copy, original)
        ]

    def _heard(self, crop: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return self._augment(crop.astype(np.float32) / INT16_SCALE, generator)


def unlabelled_crops(size: int, share: float) -> int:
    """Returns how many crops of a batch have no label."""
    return round(share * size)


def check_split(rows: Sequence[Row], split: str) -> None:
    """Refuses a split in which a class is missing.

    Raises:
        UserError: One is.
    """
    if not {row.label for row in rows if row.split == split} >= set(CLASSES):
        raise UserError(f"the list has no trials of both classes in the split {split!r}")


def pairs_to_draw(rows: Sequence[Row], recipe: DataRecipe) -> dict[str, list[tuple[int, int]]]:
    """Returns (original, spoofed copy) by the way it was made, after a look at what a recipe can draw.

    Raises:
        UserError: It wants pairs and there are none, or wants none and there are; or a class has but copies.
    """
    pairs = _pairs_by_attack(rows)
    if recipe.pair_share and not pairs:
        raise UserError("data.pair_share needs copies: make some with train/vocode.py and give --more")
    if pairs and not recipe.pair_share:
        raise UserError("copies are drawn with their originals alone: say data.pair_share, or leave them out")
    paired = {copy for some in pairs.values() for _, copy in some}
    alone = {row.label for index, row in enumerate(rows) if index not in paired}
    if recipe.pair_share < 1 and not alone >= set(CLASSES):
        raise UserError("all spoofs are copies, drawn with their originals alone: say data.pair_share: 1")
    return pairs


def _pairs_by_attack(rows: Sequence[Row]) -> dict[str, list[tuple[int, int]]]:
    """Returns (original, spoofed copy) of every copy of bona fide speech, by the way it was made."""
    # The same recording may also be there unlabelled.
    here = {(row.folder, row.path): index for index, row in enumerate(rows) if row.label == BONAFIDE}
    anywhere = {path: index for (_, path), index in here.items()}
    pairs: dict[str, list[tuple[int, int]]] = {}
    for index, row in enumerate(rows):
        original = here.get((row.folder, row.source), anywhere.get(row.source))
        if row.label == SPOOF and original is not None:
            pairs.setdefault(row.attack, []).append((original, index))
    return pairs
