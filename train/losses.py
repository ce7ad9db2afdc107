"""What training makes smaller: the losses by which labels are learnt.

All in float32 whatever the network computed in: bfloat16 has only 8 bits for a logarithm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoof.errors import UserError
from antispoof.models import BONAFIDE, SPOOF, Detector, DetectorOutput
from train.batches import NO_LABEL
from train.recipe import LossRecipe

CENTRE = "oc_softmax_centre"  # of the models whose score is a cosine
LAST_LAYER = "classify"


def check_loss(model: Detector, recipe: LossRecipe) -> None:
    """Raises ``UserError`` where a model lacks what its loss is computed with."""
    if recipe.name == "oc-softmax" and not hasattr(model, CENTRE):
        raise UserError(f"loss.name oc-softmax needs a model that scores by a cosine; {model.name} does not")
    if recipe.name != "oc-softmax" and hasattr(model, CENTRE):
        raise UserError(f"{model.name} scores by a cosine, which loss.name {recipe.name} does not train")
    if recipe.name == "additive-margin" and not isinstance(getattr(model, LAST_LAYER, None), nn.Linear):
        raise UserError(f"loss.name additive-margin needs a last linear layer; {model.name} has none")


def label_loss(
    model: Detector, output: DetectorOutput, labels: Tensor, recipe: LossRecipe, of_batch: float = 1.0
) -> Tensor:
    """Returns the mean loss of the crops that have labels, a scalar.

    Args:
        model: The network.
        output: What it says of the crops.
        labels: (batch,), `NO_LABEL` of those that have none.
        recipe: The loss.
        of_batch: Share that has labels of the batch of which this is a portion. A portion in which more or
            fewer have any counts for more or less, so that portions average to what the batch would give.
    """
    labelled = labels != NO_LABEL
    here = float(labelled.float().mean())
    if here < 1:
        if not here:
            return output.logits.sum() * 0
        output = DetectorOutput(output.logits[labelled], output.embedding[labelled])
        labels = labels[labelled]
    return here / of_batch * _mean_loss(model, output, labels, recipe)


def _mean_loss(model: Detector, output: DetectorOutput, labels: Tensor, recipe: LossRecipe) -> Tensor:
    if recipe.name == "focal":
        return focal(output.logits, labels, recipe.alpha, recipe.gamma)
    if recipe.name == "oc-softmax":
        exact = DetectorOutput(output.logits.float(), output.embedding.float())
        return oc_softmax(model.score(exact), labels, recipe.scale, recipe.cosines)
    if recipe.name == "additive-margin":
        last = getattr(model, LAST_LAYER)
        cosines = F.normalize(output.embedding.float()) @ F.normalize(last.weight.float()).t()
        return cross_entropy(additive_margin(cosines, labels, recipe.scale, recipe.margin), labels, recipe)
    return cross_entropy(output.logits, labels, recipe)


def cross_entropy(logits: Tensor, labels: Tensor, recipe: LossRecipe) -> Tensor:
    """Returns the mean loss of ``logits (batch, 2)`` against ``labels (batch,)``, a scalar.

    Weights count relative to their mean, which is that of a batch, half of each class. By that of the labels
    here, a portion or a mixture that holds more of one class would take its weight away again.
    """
    weight = torch.tensor(recipe.class_weights, device=logits.device)
    losses = F.cross_entropy(
        logits.float(), labels, weight=weight, label_smoothing=recipe.label_smoothing, reduction="none"
    )
    return losses.mean() / weight.mean()


def focal(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Returns ``-alpha_t (1 - p_t) ** gamma log(p_t)``, the mean of the batch (arXiv 1708.02002, eq. 5).

    ``alpha`` is the weight of bona fide speech, ``1 - alpha`` that of spoofs.
    """
    log_probability = F.log_softmax(logits.float(), dim=1).gather(1, labels[:, None])[:, 0]
    weight = torch.where(labels == BONAFIDE, alpha, 1 - alpha)
    missing = -torch.expm1(log_probability)  # 1 - p_t, exact where p_t is nearly 1
    return -(weight * missing.clamp(min=1e-12) ** gamma * log_probability).mean()


def oc_softmax(cosines: Tensor, labels: Tensor, scale: float, wanted: tuple[float, float]) -> Tensor:
    """Returns the one-class loss of ``cosines (batch,)`` to the centre (arXiv 2010.13995, eq. 4).

    Bona fide speech is to be above the first of ``wanted``, spoofs below the second.
    """
    above, below = wanted
    missing = torch.where(labels == BONAFIDE, above - cosines.float(), cosines.float() - below)
    return F.softplus(scale * missing).mean()


def additive_margin(cosines: Tensor, labels: Tensor, scale: float, margin: float) -> Tensor:
    """Returns logits ``(batch, 2)`` in which the right class is held back (arXiv 1801.05599, eq. 6).

    Args:
        cosines: (batch, 2), between the embedding and the weights of each class. A detector still scores
            by its logits, in which the lengths of both count too.
        labels: (batch,).
        scale: What the cosines are multiplied by.
        margin: What is taken off the cosine of the right class.
    """
    return scale * (cosines - margin * F.one_hot(labels, len((SPOOF, BONAFIDE))))
