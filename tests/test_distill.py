"""Distillation: what teachers are asked, what is kept of it, and that the student follows them."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from antispoof.audio import SAMPLE_RATE
from antispoof.channel import band_limit
from antispoof.checkpoint import load_model, save_checkpoint
from antispoof.errors import UserError
from antispoof.models import Detector, DetectorOutput, create_model
from antispoof.speechlike import speech_like
from train import distill, session, transfer_set
from train.augment import Augmentation
from train.dataset import INT16_SCALE, NO_LABEL, UNLABELLED, Batches, Row, unlabelled_rows
from train.distillation import (
    Distillation,
    consensus,
    divergence,
    layer_distance,
    trusted,
)
from train.mixup import Heard
from train.network import load_teacher
from train.recipe import AugmentRecipe, DataRecipe, DistillRecipe, LossRecipe
from train.scoring import score_clips
from train.teachers import ClipTeacher, CropTeacher, Opinion, Teacher

pytestmark = pytest.mark.usefixtures("threads_as_before")

CLIP, CROP = 12_000, 6_000
SMALL = {"clip_samples": CLIP, "channels": [8] * 8}
RECIPE: dict[str, Any] = {
    "model": {"name": "fscnn", "overrides": SMALL},
    "data": {"crop_samples": CROP},
    "augment": {"gain_db": [-6, 6]},
    "optimiser": {"learning_rate": 0.01},
    "schedule": {"steps": 10, "batch": 8, "ema": 0.5, "validate_every": 5, "save_every": 3},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech-like clips; the spoofs lack the upper half of the band."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path\tlabel\tsplit"]
    for seed in range(12):
        split, label = "train" if seed < 8 else "dev", ("bonafide", "spoof")[seed % 2]
        wave = speech_like(seed, 9_000 + 500 * seed)
        wave = band_limit(wave, high_hz=3_000) if label == "spoof" else wave
        soundfile.write(folder / f"{seed}.wav", wave, SAMPLE_RATE)
        lines.append(f"{seed}.wav\t{label}\t{split}")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of another kind than the student: AASIST-L, whose clips are of fixed length."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    torch.manual_seed(5)
    save_checkpoint(create_model("aasist-l", clip_samples=CLIP, channels=(8,) * 6, sinc_bands=24), path)
    return path


@pytest.fixture
def clips() -> list[np.ndarray]:
    return [(speech_like(seed, 8_000 + 3_000 * seed) * 32_767).astype(np.int16) for seed in range(6)]


def write_recipe(folder: Path, **sections: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        yaml.safe_dump({**RECIPE, **{k: {**RECIPE.get(k, {}), **v} for k, v in sections.items()}})
    )
    return path


def arguments(config: Path, corpus: Path, out: Path, *more: object) -> list[str]:
    return ["--config", str(config), "--audio", str(corpus), "--out", str(out), *map(str, more)]


class Saying(Teacher):
    """Says the same of every crop, or of those that it is asked about."""

    features = 3

    def __init__(self, logits: Sequence[float], known: Sequence[int] | None = None) -> None:
        self._logits = torch.tensor(logits)
        self._known = None if known is None else torch.tensor(known, dtype=torch.float32)
        self.hears_crops = known is None

    def hears(self, heard: Heard) -> Any:
        def opinion(clips: torch.Tensor) -> Opinion:
            known = None if self._known is None else self._known[clips]
            embedding = torch.tensor([[1.0, 2.0, 4.0]]).expand(len(clips), 3)
            return Opinion(self._logits.expand(len(clips), 2), embedding, known)

        return opinion


def heard(labels: Sequence[int]) -> Heard:
    known, clips = torch.tensor(labels), torch.arange(len(labels))
    return Heard(torch.zeros(len(labels), CROP), known, clips, known, clips)


# ---- the loss


def test_the_divergence_is_hintons() -> None:
    logits, target = torch.tensor([[0.3, 1.1]]), torch.tensor([0.4])
    p = 1 / (1 + math.exp(-(1.1 - 0.3) / 3))
    expected = 9 * (0.6 * math.log(0.6 / (1 - p)) + 0.4 * math.log(0.4 / p))
    assert float(divergence(logits, target, 3.0)) == pytest.approx(expected, rel=1e-5)
    assert float(divergence(logits, torch.tensor([p]), 3.0)) == pytest.approx(0, abs=1e-6)


def test_teachers_are_averaged_as_asked() -> None:
    said = [torch.tensor([[0.0, 8.0]]), torch.tensor([[0.0, -2.0]])]
    both = torch.ones(2, 1)
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    for ensemble, expected in (("probabilities", (sigmoid(4) + sigmoid(-1)) / 2), ("log-odds", sigmoid(1.5))):
        mean, believed = consensus(said, both, DistillRecipe(temperature=2, ensemble=ensemble))
        assert float(mean) == pytest.approx(expected, rel=1e-5)
        assert believed.tolist() == [1]
    alone, _ = consensus(said, torch.tensor([[0.0], [1.0]]), DistillRecipe(temperature=2))
    assert float(alone) == pytest.approx(sigmoid(-1), rel=1e-5)


def test_a_teacher_is_believed_where_it_is_right_or_nobody_knows() -> None:
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 0, 1, NO_LABEL])
    everywhere = Opinion(logits, logits)
    assert trusted(everywhere, labels, "right").tolist() == [1, 0, 0, 1, 1]
    assert trusted(everywhere, labels, "all").tolist() == [1] * 5
    somewhere = Opinion(logits, logits, torch.tensor([1.0, 1, 1, 0, 0]))
    assert trusted(somewhere, labels, "right").tolist() == [1, 0, 0, 0, 0]
    assert trusted(somewhere, labels, "all").tolist() == [1, 1, 1, 0, 0]


def test_each_term_of_the_loss_counts_by_its_weight() -> None:
    torch.manual_seed(0)
    model = create_model("fscnn", clip_samples=CROP, channels=(8,) * 8)
    output = DetectorOutput(torch.tensor([[1.0, 0.0], [0.5, 0.0]]), torch.randn(2, 16))

    def loss(labels: Sequence[int] = (0, 1), **recipe: Any) -> float:
        objective = Distillation(DistillRecipe(**recipe), LossRecipe(), [Saying([-1.0, 1.0])], 16)
        return float(objective(model, heard(labels), output).detach())

    taught, labelled = loss(weight=1.0), loss(weight=0.0)
    assert loss(weight=0.25) == pytest.approx(0.25 * taught + 0.75 * labelled, rel=1e-5)
    assert loss(weight=1.0, feature_weight=1.0) > taught + 0.1
    assert loss(weight=1.0, trust="right") < taught  # it is wrong about one of the two
    assert loss(labels=(NO_LABEL, NO_LABEL), weight=0.0) == 0
    assert loss(labels=(NO_LABEL, NO_LABEL), weight=1.0) == pytest.approx(taught)


def test_a_clip_teacher_counts_by_its_weight_where_it_was_asked() -> None:
    torch.manual_seed(0)
    model = create_model("fscnn", clip_samples=CROP, channels=(8,) * 8)
    output = DetectorOutput(torch.tensor([[1.0, 0.0], [0.5, 0.0]]), torch.randn(2, 16))
    crops, asked = Saying([-1.0, 1.0]), Saying([6.0, -6.0], known=[0, 1])

    def loss(teachers: Sequence[Teacher], odds: Sequence[float] = (), **fields: Any) -> tuple[float, float]:
        recipe = DistillRecipe(weight=1.0, temperature=1.0, ensemble="log-odds", **fields)
        objective = Distillation(recipe, LossRecipe(), teachers, 16)
        found = float(objective(model, heard([NO_LABEL, NO_LABEL]), output).detach())
        expected = divergence(output.logits, torch.sigmoid(torch.tensor(odds)), 1.0).mean() if odds else 0
        return found, float(expected)

    # Of the first crop it knows nothing; of the second the log-odds are 2 by one voice, -12 by its weight.
    for weight in (0.0, 0.25, 1.0):
        found, expected = loss([crops, asked], (2.0, (2 - 12 * weight) / (1 + weight)), clip_weight=weight)
        assert found == pytest.approx(expected, rel=1e-4)
    found, expected = loss([asked], (0.0, -12.0))  # nobody knows of the first: nothing is learnt from it
    assert found == pytest.approx(
        float(divergence(output.logits, torch.tensor([0.5, 0.0]), 1.0)[1]) / 2, rel=1e-3
    )
    everyone = Distillation(DistillRecipe(feature_weight=1.0), LossRecipe(), [crops, asked], 16)
    chosen = DistillRecipe(feature_weight=1.0, feature_teachers="clip")
    assert len(everyone.projections) == 2
    assert len(Distillation(chosen, LossRecipe(), [crops, asked], 16).projections) == 1
    nothing_asked = [crops, Saying([6.0, -6.0], known=[0, 0])]
    of_features = [loss(nothing_asked, feature_teachers="clip", feature_weight=w)[0] for w in (0.0, 9.0)]
    assert of_features[0] == of_features[1], "the embedding of what was not asked is none to follow"


def test_the_compared_part_is_the_one_that_is_named(teacher_file: Path) -> None:
    crops = torch.from_numpy(np.stack([speech_like(seed, CROP) for seed in range(3)]))
    some = Heard(crops, *[torch.zeros(3, dtype=torch.long)] * 4)
    student = load_teacher(teacher_file, CROP)
    teacher = CropTeacher(teacher_file, CROP, torch.device("cpu"), layer="encoder")
    recipe = DistillRecipe(weight=1.0, layer="encoder", layer_weight=2.0)
    objective = Distillation(recipe, LossRecipe(), [teacher], teacher.features)
    objective.watch(student)
    with torch.no_grad():
        assert float(objective(student, some, student(crops))) == pytest.approx(0, abs=1e-5)
        student.encoder.blocks[5].conv2.weight.mul_(2)
        student.classify.weight.zero_()
        student.classify.bias.zero_()
        output = student(crops)
        found, wanted = student.encoder(crops), load_teacher(teacher_file, CROP).encoder(crops)
        without = Distillation(DistillRecipe(weight=1.0), LossRecipe(), [teacher], teacher.features)
        expected = ((found - wanted) ** 2).sum((1, 2, 3)) / (wanted**2).sum((1, 2, 3))
        total = float(objective(student, some, output)) - float(without(student, some, output))
    assert total == pytest.approx(2 * float(expected.mean()), rel=1e-4)
    assert total > 0.01
    wider = torch.nn.functional.pad(found, (0, 1))
    with pytest.raises(UserError, match="cannot be compared"):
        layer_distance(wider, wanted)
    with pytest.raises(UserError, match="no part 'middle'"):
        CropTeacher(teacher_file, CROP, torch.device("cpu"), layer="middle")


# ---- teachers


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

    def ask(some: list[np.ndarray], **how: Any) -> Opinion:
        asked.clear()
        teacher = ClipTeacher(teacher_file, some, tmp_path, watch, torch.device("cpu"), **how)
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
    some = ask(clips, asked=[1, 4])
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
        ClipTeacher(teacher_file, clips, tmp_path, interrupted, torch.device("cpu"))
    with sqlite3.connect(tmp_path / "opinions.sqlite") as database:
        [(count,)] = database.execute("SELECT count(*) FROM opinions")
    database.close()
    assert count == 1
    asked: list[int] = []
    ClipTeacher(teacher_file, clips, tmp_path, lambda n: asked.extend(n) or n, torch.device("cpu"))
    assert len(asked) == 5


# ---- audio without labels


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


# ---- the command


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


def test_public_weights_teach_at_the_length_of_the_crops(shared: Path) -> None:
    teacher = CropTeacher(shared / "weights/AASIST-L.pth", 24_000, torch.device("cpu"))
    crops = torch.from_numpy(speech_like(0, 24_000))[None]
    opinion = teacher.hears(Heard(crops, *[torch.zeros(1, dtype=torch.long)] * 4))(torch.zeros(1))
    assert opinion.embedding.shape == (1, 160)
    assert isinstance(teacher._model, Detector)
