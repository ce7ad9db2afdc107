"""The loss of a student: how far it is from what its teachers say, and from the labels.

Hinton et al., "Distilling the knowledge in a neural network", arXiv 1503.02531, sec. 2; embeddings through a
learnt layer: Romero et al., "FitNets", arXiv 1412.6550, eq. 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoof.errors import UserError
from antispoof.models import BONAFIDE, SPOOF, Detector, DetectorOutput
from train.batches import NO_LABEL
from train.losses import CENTRE, label_loss
from train.mixup import Heard
from train.objective import Objective
from train.recipe import DistillRecipe, LossRecipe
from train.teachers import Listener, Opinion, Teacher


class Distillation(Objective):
    """The teachers' term by its weight, the labels' by the rest, and the distance between embeddings."""

    def __init__(
        self, recipe: DistillRecipe, labels: LossRecipe, teachers: Sequence[Teacher], student_features: int
    ) -> None:
        super().__init__()
        self._recipe, self._labels = recipe, labels
        self._teachers = list(teachers)  # they learn nothing and are saved nowhere
        self._weights = [1.0 if teacher.hears_crops else recipe.clip_weight for teacher in teachers]
        self._compared = [
            index
            for index, teacher in enumerate(teachers)
            if recipe.feature_weight and (recipe.feature_teachers == "all" or not teacher.hears_crops)
        ]
        if recipe.feature_weight and teachers and not self._compared:
            raise UserError("distill.feature_teachers are clip teachers, and none is: give --clip-teacher")
        self.projections = nn.ModuleList(
            nn.Linear(student_features, teachers[index].features) for index in self._compared
        )
        self._listener: Listener | None = None

    def watch(self, model: Detector) -> None:
        """Keeps, from now on, what the part that is compared puts out.

        Raises:
            UserError: The student has no such part, or does not score by logits, as teachers do.
        """
        if hasattr(model, CENTRE):
            raise UserError(f"{model.name} scores by a cosine, and teachers by logits: it cannot learn so")
        if self._recipe.compared:
            self._listener = Listener(model, self._recipe.compared)

    def forward(self, model: Detector, heard: Heard, output: DetectorOutput) -> Tensor:
        """Returns a scalar."""
        opinions = [teacher.hears(heard) for teacher in self._teachers]

        def loss(labels: Tensor, clips: Tensor) -> Tensor:
            said = [opinion(clips) for opinion in opinions]
            return self._loss(model, output, labels, said, heard.labelled)

        total = heard.mean_over(loss)
        if self._listener is None:
            return total
        found = self._listener.take().float()
        wanted = [layer for opinion in opinions if (layer := opinion(heard.clips).layer) is not None]
        return total + self._recipe.layer_weight * sum(layer_distance(found, one) for one in wanted)

    def _loss(
        self, model: Detector, output: DetectorOutput, labels: Tensor, said: list[Opinion], labelled: float
    ) -> Tensor:
        recipe = self._recipe
        believed = torch.stack([trusted(opinion, labels, recipe.trust) for opinion in said])
        votes = believed * believed.new_tensor(self._weights)[:, None]
        target, any_believed = consensus([opinion.logits for opinion in said], votes, recipe)
        distance = divergence(output.logits, target, recipe.temperature)
        total = recipe.weight * (distance * any_believed).mean()
        if recipe.weight < 1:
            from_labels = label_loss(model, output, labels, self._labels, labelled)
            total = total + (1 - recipe.weight) * from_labels
        for projection, index in zip(self.projections, self._compared, strict=True):
            # At unit variance, so that one weight does for teachers of any scale.
            embedding = said[index].embedding
            wanted = F.layer_norm(embedding, embedding.shape[1:])
            distance = (projection(output.embedding.float()) - wanted).square().mean(dim=1)
            total = total + recipe.feature_weight * (distance * believed[index]).mean()
        return total


def layer_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Returns the mean over the batch of each one's squared error, as a share of what is wanted.

    Raises:
        UserError: They are not of one shape, as those of different networks.
    """
    if found.shape != wanted.shape:
        shapes = f"{tuple(found.shape)} and {tuple(wanted.shape)}"
        raise UserError(f"distill.layer puts out {shapes} in student and teacher, which cannot be compared")
    axes = tuple(range(1, wanted.dim()))
    return ((found - wanted).square().mean(axes) / wanted.square().mean(axes).clamp(min=1e-12)).mean()


def trusted(opinion: Opinion, labels: Tensor, trust: str) -> Tensor:
    """Returns 1 for each crop (batch,) about which a teacher is believed, 0 for the others."""
    logits = opinion.logits
    known = torch.ones_like(logits[:, 0]) if opinion.known is None else opinion.known
    if trust == "all":
        return known
    right = (logits[:, BONAFIDE] > logits[:, SPOOF]) == (labels == BONAFIDE)
    return known * (right | (labels == NO_LABEL)).to(logits.dtype)


def consensus(logits: Sequence[Tensor], votes: Tensor, recipe: DistillRecipe) -> tuple[Tensor, Tensor]:
    """Returns the teachers' mean probability of bona fide speech (batch,), and 1 where any is believed.

    Args:
        logits: Of each teacher, (batch, 2).
        votes: (teachers, batch), how much each counts.
        recipe: At what temperature, and whether probabilities or log-odds are averaged.
    """
    odds = torch.stack([(one[:, BONAFIDE] - one[:, SPOOF]).float() for one in logits]) / recipe.temperature
    cast = votes.sum(dim=0)
    divisor = torch.where(cast > 0, cast, 1)
    if recipe.ensemble == "log-odds":
        mean = torch.sigmoid((odds * votes).sum(dim=0) / divisor)
    else:
        mean = (torch.sigmoid(odds) * votes).sum(dim=0) / divisor
    return mean, (cast > 0).to(mean.dtype)


def divergence(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Returns T^2 times the Kullback-Leibler divergence (batch,) of the student from the teachers.

    Times T^2, because the gradients of softened probabilities are smaller by that (sec. 2.1).

    Args:
        logits: The student's, (batch, 2).
        target: Probability of bona fide speech at that temperature, (batch,).
        temperature: T.
    """
    log_student = F.log_softmax(logits.float() / temperature, dim=1)
    wanted = torch.stack([1 - target, target], dim=1)  # in the order of SPOOF, BONAFIDE
    return temperature**2 * F.kl_div(log_student, wanted, reduction="none").sum(dim=1)
