"""How well a trained detector hears unseen spoofs under the conditions of `antispoof.channel.conditions`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from antispoof.bootstrap import Interval, eer_interval
from antispoof.channel.conditions import CONDITIONS, hear
from antispoof.checkpoint import load_model
from antispoof.metrics import AttackEer, eer_by_attack
from antispoof.models import Detector
from antispoof.protocols import BONAFIDE
from train.dataset import INT16_SCALE, Row
from train.scoring import CLIPS_AT_ONCE, score_clips, split_by_class

CLIPS_DEGRADED = 16 * CLIPS_AT_ONCE  # that are degraded before they are scored
Scorer = Callable[[Detector, Sequence[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Figure:
    """The EER of one split under one condition.

    Attributes:
        split: ``dev`` or ``test``.
        condition: What was done to the recordings, in words.
        eer: With its interval.
        bonafide: Number of clips.
        spoofs: Number of clips.
    """

    split: str
    condition: str
    eer: Interval
    bonafide: int
    spoofs: int


def load_listener(path: Path) -> Detector:
    """Returns the network of a checkpoint, its channels in the order in which a CPU hears fastest.

    That and kept memory (`antispoof.memory`) together make AASIST-L five times as fast.
    """
    return load_model(path).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def degrade(clips: Sequence[np.ndarray], condition: str, first: int = 0) -> list[list[np.ndarray]]:
    """Returns int16 clips under a condition of ``CONDITIONS``, once for each of its ways.

    The chance in clip i is seeded by i, alike in every way; ``first`` is the number of the first of them.
    """
    ways: list[list[np.ndarray]] = [[] for _ in CONDITIONS[condition]]
    for index, clip in enumerate(clips, first):
        waveform = clip.astype(np.float32) / INT16_SCALE
        for way, heard in zip(ways, hear(waveform, condition, index), strict=True):
            way.append(np.rint(heard * INT16_SCALE).astype(np.int16))
    return ways


def score_ways(
    model: Detector, heard: Sequence[Sequence[np.ndarray]], score: Scorer = score_clips
) -> np.ndarray:
    """Returns the scores (clips, ways) of what `degrade` returned."""
    return np.stack([score(model, clips) for clips in heard], axis=1)


def score_under(
    models: Sequence[Detector],
    clips: Sequence[np.ndarray],
    condition: str,
    score: Scorer = score_clips,
    watch: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> np.ndarray:
    """Returns the scores (models, clips, ways) under a condition, with a few clips in memory at a time.

    Args:
        models: Each of which hears the same.
        clips: Recordings, int16.
        condition: Of ``CONDITIONS``.
        score: Scores clips with a model.
        watch: Wraps the numbers of the first clips of groups to show the progress.
    """
    parts = []
    for first in watch(range(0, len(clips), CLIPS_DEGRADED)):
        heard = degrade(clips[first : first + CLIPS_DEGRADED], condition, first)
        parts.append(np.stack([score_ways(model, heard, score) for model in models]))
    return np.concatenate(parts, axis=1)


def figure_of(
    scores: np.ndarray, rows: Sequence[Row], split: str, condition: str
) -> tuple[Figure, tuple[AttackEer, ...]]:
    """Returns the EER of scores (clips, ways), over all trials and for the spoofs of each data set."""
    bonafide, spoofs = split_by_class(scores, rows)
    figure = Figure(split, condition, eer_interval(bonafide, spoofs), len(bonafide), len(spoofs))
    heard = [row for row in rows for _ in range(scores.shape[1])]
    genuine = [row.label == BONAFIDE for row in heard]
    return figure, eer_by_attack(scores.ravel(), genuine, [row.dataset for row in heard])
