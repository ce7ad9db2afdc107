"""How fast weights move, which of them decay, and the average that is kept of them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from antispoof.errors import UserError
from train.recipe import OptimiserRecipe, ScheduleRecipe


def learning_rate(step: int, steps: int, recipe: OptimiserRecipe) -> float:
    """Returns the rate of a step, counted from 0: up in a straight line, then half a cosine down."""
    warmup = round(recipe.warmup_share * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    fallen = recipe.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
    return fallen + (recipe.learning_rate - fallen) * recipe.final_share


def build_optimiser(modules: Iterable[nn.Module], recipe: OptimiserRecipe) -> torch.optim.Optimizer:
    """Returns the optimiser; biases and the scales of norms do not decay.

    Each group has a ``share``: its rate is that share of the current one.

    Raises:
        UserError: A word of ``rates`` is in no parameter's name.
    """
    modules = list(modules)
    names = [name for module in modules for name, _ in module.named_parameters()]
    for word in recipe.rates:
        if not any(word in name for name in names):
            raise UserError(f"optimiser.rates: no parameter's name holds {word!r}")
    shares = {word: rate / recipe.learning_rate for word, rate in recipe.rates.items()}
    sorted_out: dict[float, list[Tensor]] = {1.0: []}
    for module in modules:
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                share = next((share for word, share in shares.items() if word in name), 1.0)
                sorted_out.setdefault(share, []).append(parameter)
    groups = []
    for share, parameters in sorted_out.items():
        matrices = [p for p in parameters if p.dim() > 1]
        vectors = [p for p in parameters if p.dim() <= 1]
        groups += [
            {"params": matrices, "weight_decay": recipe.weight_decay, "share": share},
            {"params": vectors, "weight_decay": 0.0, "share": share},
        ]
    kind = torch.optim.AdamW if recipe.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.learning_rate)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of every group, by its share."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def kept_share(step: int, recipe: ScheduleRecipe) -> float:
    """Returns how much of the average is left after a step, counted from 0; the rest is the new weights.

    At first it follows faster than the recipe says, when the weights are still noise. Towards the end, where
    the recipe says so, it becomes the plain mean of the weights from there on.
    """
    start = swa_start(recipe)
    if step >= start:
        return (step - start) / (step - start + 1)
    return min(recipe.ema, (1 + step) / (10 + step))


def swa_start(recipe: ScheduleRecipe) -> int:
    """Returns the step, counted from 0, from which the average is the plain mean of the weights."""
    return recipe.steps - round(recipe.swa_share * recipe.steps)
