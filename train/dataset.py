"""The recordings of a run: which rows of a list may be used, their samples in memory, and each step's batch.

The list is tab-separated with a header: path, label (bonafide, spoof or noise) and split (train, dev, ...);
dataset, attack and licence where they are known.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from antispoof.audio import load_audio
from antispoof.data import BONAFIDE, NOISE, SPOOF, UNKNOWN
from antispoof.errors import UserError
from antispoof.text_tables import header_columns, split_fields, text_lines
from train.augment import Augmentation, random_crop
from train.recipe import DataRecipe

CLASSES = (SPOOF, BONAFIDE)  # in the order of the logits
INT16_SCALE = 32_768


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    path: str
    label: str
    split: str
    dataset: str = UNKNOWN
    attack: str = UNKNOWN
    licence: str = ""


def read_rows(path: Path) -> list[Row]:
    """Returns every line of a list, noise included, in the order of the file.

    Raises:
        UserError: The file cannot be read, lacks a column, or a line does not fit its header.
    """
    lines = text_lines(path)
    columns: dict[str, int] | None = None
    rows = []
    for number, line in lines:
        fields = split_fields(line, "\t")
        if columns is None:
            columns = header_columns(fields)
            missing = [name for name in ("path", "label", "split") if name not in columns]
            if missing:
                raise UserError(
                    f"{path}: the header lacks the column {missing[0]!r}; columns are separated by tabs"
                )
        elif len(fields) != len(columns):
            raise UserError(f"{path}:{number}: {len(fields)} columns where the header has {len(columns)}")
        else:
            row = Row(**{name: fields[columns[name]] for name in Row.__slots__ if name in columns})
            if row.label not in (*CLASSES, NOISE):
                raise UserError(f"{path}:{number}: the label {row.label!r} is none of bonafide, spoof, noise")
            rows.append(row)
    return rows


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


def training_rows(rows: Iterable[Row], recipe: DataRecipe) -> tuple[list[Row], list[Row]]:
    """Returns what is trained on and the additive noise, of the train split alone.

    Raises:
        UserError: A class has no recording left.
    """
    allowed = [row for row in rows if row.split == "train" and may_train(row, recipe)]
    speech = [row for row in allowed if row.label != NOISE]
    noise = [row for row in allowed if row.label == NOISE and row.path.startswith(recipe.noise_folders)]
    for label in CLASSES:
        if not any(row.label == label for row in speech):
            raise UserError(f"no {label} recording of the train split may be used; see data in the recipe")
    return speech, noise


def decode(
    rows: Sequence[Row], folder: Path, watch: Callable[[Sequence[Row]], Iterable[Row]]
) -> list[np.ndarray]:
    """Returns every recording as (samples,) int16, which takes half the memory of float32.

    Args:
        rows: What to read.
        folder: Where the paths of the rows start.
        watch: Wraps the rows to show the progress, as ``tqdm`` does.
    """
    clips = []
    for row in watch(rows):
        scaled = np.rint(load_audio(folder / row.path) * INT16_SCALE)
        clips.append(np.clip(scaled, -INT16_SCALE, INT16_SCALE - 1).astype(np.int16))
    return clips


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
    shares = np.array([weights.get(row.dataset, 1.0) / np.sqrt(sizes[row.dataset]) for row in rows])
    return shares / shares.sum()


class Batches:
    """The batches of a run by number: the same seed and step give the same batch, whatever came before."""

    def __init__(
        self,
        rows: Sequence[Row],
        clips: Sequence[np.ndarray],
        recipe: DataRecipe,
        augment: Augmentation,
        seed: int,
    ) -> None:
        self._clips, self._augment, self._seed = clips, augment, seed
        self._crop = recipe.crop_samples
        self._classes = []
        for label in CLASSES:
            members = np.array([index for index, row in enumerate(rows) if row.label == label])
            chances = draw_probabilities([rows[index] for index in members], recipe.dataset_weights)
            self._classes.append((members, chances))

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Returns waveforms ``(size, crop_samples)`` and labels ``(size,)``, both classes equally often."""
        generator = np.random.default_rng([self._seed, step])
        labels = np.arange(size) % len(CLASSES)
        waveforms = np.empty((size, self._crop), np.float32)
        for waveform, label in zip(waveforms, labels, strict=True):
            members, chances = self._classes[label]
            clip = self._clips[generator.choice(members, p=chances)]
            crop = random_crop(clip, self._crop, generator).astype(np.float32) / INT16_SCALE
            waveform[:] = self._augment(crop, generator)
        return torch.from_numpy(waveforms), torch.from_numpy(labels)
