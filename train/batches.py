"""The batch of each step: which recordings are drawn for it, alone or beside their copies, and cut where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from antispoof.errors import UserError
from antispoof.protocols import BONAFIDE, SPOOF
from train.augment import Augmentation, crop_start, cut, random_crop
from train.dataset import CLASSES, INT16_SCALE, UNLABELLED, Row
from train.recipe import DataRecipe

NO_LABEL = -1  # of a crop that only teachers have an opinion of


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
