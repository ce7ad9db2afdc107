"""What training makes smaller."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from train.recipe import LossRecipe


def cross_entropy(logits: Tensor, labels: Tensor, recipe: LossRecipe) -> Tensor:
    """Returns the mean loss of ``logits (batch, 2)`` against ``labels (batch,)``, a scalar.

    In float32 whatever the network computed in: bfloat16 has only 8 bits for the logarithm.
    """
    weight = torch.tensor(recipe.class_weights)
    return F.cross_entropy(logits.float(), labels, weight=weight, label_smoothing=recipe.label_smoothing)
