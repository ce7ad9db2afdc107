"""Audio without labels: where it comes from, its share of a batch, and what of it stays untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from tests.distill.crops import CLIP, CROP
from train.augment import Augmentation
from train.batches import NO_LABEL, Batches
from train.dataset import INT16_SCALE, UNLABELLED, Row, unlabelled_rows
from train.recipe import AugmentRecipe, DataRecipe

pytestmark = pytest.mark.usefixtures("threads_as_before")


def test_unlabelled_audio_is_a_list_or_a_folder(corpus: Path, tmp_path: Path) -> None:
    listed = unlabelled_rows(corpus)
    assert [row.path for row in listed] == [f"{n}.wav" for n in range(8)]  # not those of dev
    assert {row.label for row in listed} == {UNLABELLED}
    with pytest.raises(UserError, match="holds no audio"):
        unlabelled_rows(tmp_path)
    soundfile.write(tmp_path / "a.wav", speech_like(0, CLIP), SAMPLE_RATE)
    assert [row.path for row in unlabelled_rows(tmp_path)] == ["a.wav"]


def test_batches_end_in_unlabelled_crops(clips: list[np.ndarray]) -> None:
    labels = ["spoof", "bonafide", "spoof", "bonafide", UNLABELLED, UNLABELLED]
    rows = [Row(str(i), label, "train") for i, label in enumerate(labels)]
    batches = Batches(
        rows,
        clips,
        DataRecipe(crop_samples=CROP),
        Augmentation(AugmentRecipe(), []),
        0,
        unlabelled_share=0.25,
    )
    batch = batches.batch(0, 8)
    assert batch.labels.tolist() == [0, 1, 0, 1, 0, 1, NO_LABEL, NO_LABEL]
    assert {labels[clip] for clip in batch.clips[6:]} == {UNLABELLED}
    assert [labels[clip] for clip in batch.clips[:6]] == ["spoof", "bonafide"] * 3


def test_untouched_crops_are_the_recordings_themselves(clips: list[np.ndarray]) -> None:
    rows = [Row(str(i), label, "train") for i, label in enumerate(["spoof", "bonafide"] + [UNLABELLED] * 4)]
    shorter = [clip[:CROP] for clip in clips]
    quieter = Augmentation(AugmentRecipe(gain_db=(-20, -10)), [])

    def untouched(share: float) -> list[bool]:
        recipe = DataRecipe(crop_samples=CROP)
        batch = Batches(rows, shorter, recipe, quieter, 0, unlabelled_share=0.5, untouched_share=share)
        crops = batch.batch(0, 32)
        recorded = [torch.from_numpy(shorter[clip] / np.float32(INT16_SCALE)) for clip in crops.clips]
        same = [torch.equal(a, b) for a, b in zip(crops.waveforms, recorded, strict=True)]
        assert not any(same[:16]), "what has labels is always augmented"
        return same[16:]

    assert all(untouched(1.0))
    assert not any(untouched(0.0))
    assert 4 < sum(untouched(0.5)) < 12
