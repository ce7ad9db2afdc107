"""The loss of a student: each teacher counts by its weight where it is believed, by the definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antispoof.errors import UserError
from antispoof.models import DetectorOutput, create_model
from antispoof.speechlike import speech_like
from tests.distill.crops import CROP, heard
from train.batches import NO_LABEL
from train.distillation import Distillation, consensus, divergence, layer_distance, trusted
from train.mixup import Heard
from train.network import load_teacher
from train.recipe import DistillRecipe, LossRecipe
from train.teachers import CropTeacher, Opinion, Teacher

pytestmark = pytest.mark.usefixtures("threads_as_before")


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


def test_the_divergence_is_hintons() -> None:
    logits, target = torch.tensor([[0.3, 1.1]]), torch.tensor([0.4])
    p = 1 / (1 + math.exp(-(1.1 - 0.3) / 3))
    expected = 9 * (0.6 * math.log(0.6 / (1 - p)) + 0.4 * math.log(0.4 / p))
    assert float(divergence(logits, target, 3.0)) == pytest.approx(expected, rel=1e-5)
    assert float(divergence(logits, torch.tensor([p]), 3.0)) == pytest.approx(0, abs=1e-6)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


TWO_SAY = [torch.tensor([[0.0, 8.0]]), torch.tensor([[0.0, -2.0]])]


@pytest.mark.parametrize(
    ("ensemble", "expected"),
    [("probabilities", (sigmoid(4) + sigmoid(-1)) / 2), ("log-odds", sigmoid(1.5))],
)
def test_teachers_are_averaged_as_asked(ensemble: str, expected: float) -> None:
    recipe = DistillRecipe(temperature=2, ensemble=ensemble)
    mean, believed = consensus(TWO_SAY, torch.ones(2, 1), recipe)
    assert float(mean) == pytest.approx(expected, rel=1e-5)
    assert believed.tolist() == [1]


def test_a_teacher_that_is_believed_alone_is_not_averaged() -> None:
    alone, _ = consensus(TWO_SAY, torch.tensor([[0.0], [1.0]]), DistillRecipe(temperature=2))
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


@pytest.mark.parametrize("unlabelled", [0, 3, 6])
def test_portions_average_to_the_loss_of_their_batch(unlabelled: int) -> None:
    torch.manual_seed(0)
    model = create_model("fscnn", clip_samples=CROP, channels=(8,) * 8)
    logits, embedding = torch.randn(12, 2), torch.randn(12, 16)
    batch = heard([n % 2 for n in range(12 - unlabelled)] + [NO_LABEL] * unlabelled)
    objective = Distillation(DistillRecipe(weight=0.25), LossRecipe(), [Saying([-1.0, 1.0])], 16)

    def loss(portions: int) -> float:
        ends = zip(logits.chunk(portions), embedding.chunk(portions), strict=True)
        said = [DetectorOutput(*one) for one in ends]
        return float(
            sum(objective(model, batch.part(i, portions), one) for i, one in enumerate(said)) / portions
        )

    assert [loss(portions) for portions in (2, 4, 12)] == pytest.approx([loss(1)] * 3, rel=1e-5)


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
