"""A teacher of naturalness is asked like any other, from weights under its authors' names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from tests.distill.crops import CROP, heard
from tests.distill.mos_weights import write_weights
from train.distill_mos import HEARD, NATURAL, DistillMos, compressed_spectrogram
from train.network import load_teacher
from train.teachers import ClipTeacher

pytestmark = pytest.mark.usefixtures("threads_as_before")

TOLERANCE = 1e-5  # of float32


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DistillMos]:
    path = tmp_path_factory.mktemp("weights") / "distill_mos.pt"
    return path, write_weights(path)


@pytest.fixture(scope="module")
def weights_file(written: tuple[Path, DistillMos]) -> Path:
    return written[0]


@pytest.fixture(scope="module")
def network(written: tuple[Path, DistillMos]) -> DistillMos:
    return written[1]


def test_it_is_asked_about_recordings(
    network: DistillMos, weights_file: Path, clips: list[np.ndarray], tmp_path: Path
) -> None:
    teacher = ClipTeacher(weights_file, torch.device("cpu"), CROP)
    teacher.ask(clips[:2], tmp_path, iter)
    opinion = teacher.hears(heard([0, 0]))(torch.arange(2))
    crop = clips[0][:CROP].astype(np.float32) / 32_768
    with torch.no_grad():
        rating, embedding = network.rating(torch.from_numpy(crop)[None])
    odds = opinion.logits[0, 1] - opinion.logits[0, 0]
    assert float(odds) == pytest.approx(float(rating) - NATURAL, abs=TOLERANCE)
    assert torch.allclose(opinion.embedding[0], embedding[0], atol=TOLERANCE)


def test_level_is_nothing_to_it(weights_file: Path) -> None:
    teacher = load_teacher(weights_file)
    speech = torch.from_numpy(speech_like(0, HEARD))[None]
    with torch.no_grad():
        loud, quiet = teacher(speech).logits, teacher(speech / 16).logits
    assert torch.allclose(loud, quiet, atol=TOLERANCE)


def test_clips_longer_than_it_hears_are_refused(weights_file: Path) -> None:
    with pytest.raises(UserError, match=f"hears up to {HEARD} samples"):
        load_teacher(weights_file, HEARD + 1)


def test_magnitudes_are_compressed_and_phases_kept() -> None:
    tone = torch.sin(2 * torch.pi * 1000 / 16_000 * torch.arange(3200.0))[None]
    loud, quiet = (
        torch.view_as_complex(compressed_spectrogram(x).movedim(1, -1).contiguous())
        for x in (tone, tone / 10)
    )
    assert loud.shape == (1, 161, 20)
    peak = loud[0, 20, 5], quiet[0, 20, 5]  # of 1 kHz, in bins of 50 Hz
    assert float(peak[0].abs() / peak[1].abs()) == pytest.approx(10**0.3, rel=1e-3)
    assert float(peak[0].angle()) == pytest.approx(float(peak[1].angle()), abs=1e-3)


def test_weights_of_another_size_are_refused(network: DistillMos, tmp_path: Path) -> None:
    path = tmp_path / "smaller.pt"
    torch.save({"transformer_pool_attn.pool.linear3.weight": torch.zeros(1, 100)}, path)
    with pytest.raises(UserError, match="not a checkpoint of DistillMOS"):
        load_teacher(path)
