"""Keeps what detectors said of clips on disk, so that a measurement is gone on with and not begun again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from antispoof.checkpoint import weights_hash
from antispoof.errors import UserError, one_line
from antispoof.models import Detector
from train.dataset import fingerprint
from train.scoring import score_clips


class KeptScores:
    """Scores of a detector on clips, from the folder where they were computed before."""

    def __init__(self, folder: Path | None) -> None:
        """Makes the folder; None keeps nothing."""
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, model: Detector, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the score (clips,) of each int16 clip.

        The file is named by all that they depend on: the network, its weights, how much it hears, and every
        sample of the clips.

        Raises:
            UserError: A file in the folder is damaged.
        """
        if self._folder is None:
            return score_clips(model, clips)
        words = f"{model.name} {weights_hash(model)} {model.clip_samples} {fingerprint(clips)}"
        path = self._folder / f"{hashlib.sha256(words.encode()).hexdigest()}.npy"
        if path.exists():
            return _read(path, len(clips))
        scores = score_clips(model, clips)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, scores)
        partial.replace(path)
        return scores


def _read(path: Path, clips: int) -> np.ndarray:
    try:
        scores: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): delete it") from None
    if scores.shape != (clips,) or scores.dtype != np.float32 or not np.isfinite(scores).all():
        raise UserError(f"{path} does not hold the scores of {clips} clips: delete it")
    return scores
