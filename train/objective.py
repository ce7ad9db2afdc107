"""What a forward pass costs, as the loop sees it."""

from __future__ import annotations

from torch import Tensor, nn

from antispoof.models import Detector, DetectorOutput
from train.losses import label_loss
from train.mixup import Heard
from train.recipe import LossRecipe


class Objective(nn.Module):
    """The loss of what was heard; a module, because it may have weights that are learnt along."""

    def watch(self, model: Detector) -> None:
        """Is shown the model that is going to learn, once."""

    def forward(self, model: Detector, heard: Heard, output: DetectorOutput) -> Tensor:
        """Returns a scalar."""
        raise NotImplementedError


class FromLabels(Objective):
    """The loss against the labels alone."""

    def __init__(self, recipe: LossRecipe) -> None:
        super().__init__()
        self._recipe = recipe

    def forward(self, model: Detector, heard: Heard, output: DetectorOutput) -> Tensor:
        """Returns a scalar."""
        return heard.mean_over(
            lambda labels, _clips: label_loss(model, output, labels, self._recipe, heard.labelled)
        )
