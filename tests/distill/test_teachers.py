"""What teachers are asked, and what is kept of it when asking is stopped or goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from antispoof.checkpoint import load_model
from antispoof.errors import UserError
from antispoof.models import Detector, create_model
from antispoof.speechlike import speech_like
from tests.distill.crops import CROP, heard
from train.mixup import Heard
from train.network import load_teacher
from train.scoring import score_clips
from train.teachers import ClipTeacher, CropTeacher, Opinion

pytestmark = pytest.mark.usefixtures("threads_as_before")


def test_a_teacher_hears_the_students_own_crops(teacher_file: Path) -> None:
    crops = torch.from_numpy(np.stack([speech_like(seed, CROP) for seed in range(3)]))
    teacher = CropTeacher(teacher_file, CROP, torch.device("cpu"))
    opinion = teacher.hears(Heard(crops, *[torch.zeros(3, dtype=torch.long)] * 4))(torch.arange(3))
    shorter = create_model("aasist-l", clip_samples=CROP, channels=(8,) * 6, sinc_bands=24)
    shorter.load_state_dict(load_model(teacher_file).state_dict())
    with torch.no_grad():
        expected = shorter.eval()(crops)
    assert torch.allclose(opinion.logits, expected.logits, atol=1e-5)
    assert opinion.embedding.shape == (3, teacher.features)


def test_what_a_teacher_said_of_clips_is_kept(
    teacher_file: Path, clips: list[np.ndarray], tmp_path: Path
) -> None:
    asked: list[int] = []

    def watch(numbers: Sequence[int]) -> Iterator[int]:
        for number in numbers:
            asked.append(number)
            yield number

    def ask(some: list[np.ndarray], samples: int | None = None, only: list[int] | None = None) -> Opinion:
        asked.clear()
        teacher = ClipTeacher(teacher_file, torch.device("cpu"), samples)
        teacher.ask(some, tmp_path, watch, only)
        return teacher.hears(heard([0] * len(some)))(torch.arange(len(some)))

    first = ask(clips[:5])
    assert len(asked) == 5
    again = ask(clips[:5][::-1])
    assert not asked
    assert torch.equal(again.logits.flip(0), first.logits)
    more = ask(clips)
    assert len(asked) == 1
    model = load_model(teacher_file)
    # A batch of another size may add up in another order.
    assert np.allclose(more.logits[:, 1].numpy(), score_clips(model, clips), atol=1e-5)
    shorter = ask(clips, samples=CROP)  # other opinions, kept apart from those of whole clips
    assert len(asked) == 6
    heard_short = score_clips(load_teacher(teacher_file, CROP), clips)
    assert np.allclose(shorter.logits[:, 1].numpy(), heard_short, atol=1e-5)
    assert float((shorter.logits - more.logits).abs().max()) > 1e-3
    some = ask(clips, only=[1, 4])
    assert some.known is not None
    assert some.known.tolist() == [0, 1, 0, 0, 1, 0]
    assert torch.equal(some.logits[[1, 4]], more.logits[[1, 4]])


def test_asking_goes_on_where_it_was_interrupted(
    teacher_file: Path, clips: list[np.ndarray], tmp_path: Path
) -> None:
    def interrupted(numbers: Sequence[int]) -> Iterator[int]:
        yield numbers[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ClipTeacher(teacher_file, torch.device("cpu")).ask(clips, tmp_path, interrupted)
    with sqlite3.connect(tmp_path / "opinions.sqlite") as database:
        [(count,)] = database.execute("SELECT count(*) FROM opinions")
    database.close()
    assert count == 1
    asked: list[int] = []
    ClipTeacher(teacher_file, torch.device("cpu")).ask(clips, tmp_path, lambda n: asked.extend(n) or n)
    assert len(asked) == 5


def test_opinions_that_cannot_be_kept_are_told_of(
    teacher_file: Path, clips: list[np.ndarray], tmp_path: Path
) -> None:
    kept = tmp_path / "opinions.sqlite"
    kept.write_bytes(b"something else" * 100)
    with pytest.raises(UserError, match=f"cannot keep opinions in {kept}: file is not a database"):
        ClipTeacher(teacher_file, torch.device("cpu")).ask(clips, tmp_path, iter)


def test_public_weights_teach_at_the_length_of_the_crops(shared: Path) -> None:
    teacher = CropTeacher(shared / "weights/AASIST-L.pth", 24_000, torch.device("cpu"))
    crops = torch.from_numpy(speech_like(0, 24_000))[None]
    opinion = teacher.hears(Heard(crops, *[torch.zeros(1, dtype=torch.long)] * 4))(torch.zeros(1))
    assert opinion.embedding.shape == (1, 160)
    assert isinstance(teacher._model, Detector)
