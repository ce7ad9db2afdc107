"""Scores whole clips the way a shipped model hears them, and what is made of the scores while training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from antispoof.audio import fit_length
from antispoof.metrics import equal_error_rate
from antispoof.models import Detector
from antispoof.protocols import BONAFIDE
from train.dataset import INT16_SCALE, Row

CLIPS_AT_ONCE = 4  # a clip takes about 130 MB inside AASIST-L


def score_clips(model: Detector, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the score (clips,) of each int16 clip, cut or repeated to the model's clip length."""
    parts = []
    device = next(model.parameters()).device
    with torch.inference_mode():
        for waveforms in whole_clips(clips, model.clip_samples):
            output = model(torch.from_numpy(waveforms).to(device))
            parts.append(model.score(output).float().cpu().numpy())
    return np.concatenate(parts)


def whole_clips(clips: Sequence[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """Yields int16 clips, a few at a time, as a detector hears them: (clips, samples) float32."""
    for first in range(0, len(clips), CLIPS_AT_ONCE):
        group = clips[first : first + CLIPS_AT_ONCE]
        yield np.stack([fit_length(clip.astype(np.float32) / INT16_SCALE, samples) for clip in group])


def split_by_class(scores: np.ndarray, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores of the bona fide rows and of the spoofs."""
    genuine = np.array([row.label == BONAFIDE for row in rows])
    return scores[genuine], scores[~genuine]


def validation_eer(model: Detector, rows: Sequence[Row], clips: Sequence[np.ndarray]) -> float:
    """Returns the EER of a model on labelled clips; an untrained one may be above one half."""
    bonafide, spoof = split_by_class(score_clips(model, clips), rows)
    return equal_error_rate(bonafide, spoof, allow_inverted=True).value
