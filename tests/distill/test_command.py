"""The command: a student follows its teacher, also after a stop, and of transfer sets too."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from antispoof.checkpoint import load_model, save_checkpoint
from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from tests.distill.crops import CLIP, CROP
from train import distill, session, transfer_set
from train.dataset import unlabelled_rows

pytestmark = pytest.mark.usefixtures("threads_as_before")

SMALL = {"clip_samples": CLIP, "channels": [8] * 8}
RECIPE: dict[str, Any] = {
    "model": {"name": "fscnn", "overrides": SMALL},
    "data": {"crop_samples": CROP},
    "augment": {"gain_db": [-6, 6]},
    "optimiser": {"learning_rate": 0.01},
    "schedule": {"steps": 10, "batch": 8, "ema": 0.5, "validate_every": 5, "save_every": 3},
}


def write_recipe(folder: Path, **sections: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        yaml.safe_dump({**RECIPE, **{k: {**RECIPE.get(k, {}), **v} for k, v in sections.items()}})
    )
    return path


def arguments(config: Path, corpus: Path, out: Path, *more: object) -> list[str]:
    return ["--config", str(config), "--audio", str(corpus), "--out", str(out), *map(str, more)]


def test_a_student_follows_its_teacher(corpus: Path, teacher_file: Path, tmp_path: Path) -> None:
    # Against the labels: a teacher that calls everything bona fide, trusted alone.
    teacher = load_model(teacher_file)
    with torch.no_grad():
        teacher.classify.weight.zero_()
        teacher.classify.bias.copy_(torch.tensor([-4.0, 4.0]))
    save_checkpoint(teacher, tmp_path / "yes.safetensors")
    config = write_recipe(tmp_path, distill={"weight": 1.0})
    out = tmp_path / "out"
    flags = arguments(config, corpus, out, "--teacher", tmp_path / "yes.safetensors", "--steps", 25)
    assert distill.main(flags) == 0
    student = load_model(out / "final.safetensors")
    with torch.no_grad():
        odds = student.score(student(torch.from_numpy(np.stack([speech_like(n, CLIP) for n in range(3)]))))
    assert (odds > 0.5).all()  # untrained they are between -0.3 and 0.3, after these steps above 1.2
    assert json.loads((out / "run.json").read_text())["teachers"][0]["file"] == "yes.safetensors"


def test_a_stopped_student_goes_on_to_the_same_weights(
    corpus: Path, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = {"feature_weight": 0.5, "weight": 0.5, "trust": "right"}
    config = write_recipe(tmp_path, distill=learnt, augment={"mixup_alpha": 1.0})
    teachers = ["--teacher", teacher_file, "--clip-teacher", teacher_file, "--unlabelled", corpus]
    teachers += ["--cached", tmp_path / "cache"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert distill.main(arguments(config, corpus, whole, *teachers)) == 0

    def watch(numbers: Sequence[int], done: int) -> Iterator[int]:
        for number in numbers:
            if number == 8:
                raise KeyboardInterrupt
            yield number

    with monkeypatch.context() as patch:
        patch.setattr(session, "progress", watch)
        with pytest.raises(KeyboardInterrupt):
            distill.main(arguments(config, corpus, stopped, *teachers))
    with pytest.raises(UserError, match="other teachers"):
        distill.main(arguments(config, corpus, stopped, *teachers[:2], "--unlabelled", corpus, "--resume"))
    assert distill.main(arguments(config, corpus, stopped, *teachers, "--resume")) == 0
    for name in ("best.safetensors", "final.safetensors", "metrics.tsv"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_a_student_needs_a_teacher(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one --teacher"):
        distill.main(arguments(write_recipe(tmp_path), corpus, tmp_path / "out"))


def test_teachers_that_nothing_is_asked_of_are_refused(
    corpus: Path, teacher_file: Path, tmp_path: Path
) -> None:
    config, out = write_recipe(tmp_path, distill={"weight": 0.0}), tmp_path / "out"
    with pytest.raises(UserError, match=r"distill\.weight is 0.*train/fit\.py learns from labels alone"):
        distill.main(arguments(config, corpus, out, "--teacher", teacher_file))
    assert not out.exists()


@pytest.mark.parametrize(
    ("sections", "teacher", "message"),
    [
        ({}, "--teacher", "no such checkpoint"),
        ({}, "--clip-teacher", "no such checkpoint"),
        ({"schedule": {"accumulate": 3}}, "", "multiple of schedule.accumulate"),
        ({"distill": {"layer": "middle", "layer_weight": 1.0}}, "", "no part 'middle'"),
        ({"loss": {"name": "oc-softmax"}}, "", "oc-softmax"),
        ({"augment": {"noise_share": 0.5}}, "", "the list has no noise"),
        ({"augment": {"codec_share": 0.5, "codecs": ["mpeg"]}}, "", "no mpeg here"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_the_corpus_is_decoded(
    sections: dict[str, Any],
    teacher: str,
    message: str,
    corpus: Path,
    teacher_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "decode", lambda *_: pytest.fail("decoded"))
    flags = [teacher or "--teacher", tmp_path / "none.pth" if teacher else teacher_file]
    config = write_recipe(tmp_path, **sections)
    with pytest.raises(UserError, match=message):
        distill.main(arguments(config, corpus, tmp_path / "out", *flags))


def test_a_slow_teacher_hears_a_transfer_set_alone(corpus: Path, teacher_file: Path, tmp_path: Path) -> None:
    of_transfer = {"excerpts": {"*": 1.5}, "changed_share": 0.5}
    learnt = {"clip_teachers_hear": "unlabelled", "clip_samples": CROP, "feature_weight": 1.0}
    config = write_recipe(tmp_path, transfer=of_transfer, distill={**learnt, "feature_teachers": "clip"})
    teachers = ["--clip-teacher", teacher_file, "--cached", tmp_path / "cache"]
    with pytest.raises(UserError, match="give --unlabelled"):
        distill.main(arguments(config, corpus, tmp_path / "out", *teachers))
    assert transfer_set.main(arguments(config, corpus, tmp_path / "excerpts")) == 0
    excerpts = unlabelled_rows(tmp_path / "excerpts")
    flags = arguments(config, corpus, tmp_path / "out", *teachers, "--unlabelled", tmp_path / "excerpts")
    assert distill.main(flags) == 0
    with sqlite3.connect(tmp_path / "cache/opinions.sqlite") as database:
        [(count,)] = database.execute("SELECT count(*) FROM opinions")
    database.close()
    assert count == len(excerpts)
