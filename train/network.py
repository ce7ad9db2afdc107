"""The networks of a run: the one that learns, the one that is kept, and those that teach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from antispoof.checkpoint import load_weights, read_checkpoint, restore
from antispoof.errors import UserError
from antispoof.models import Detector, create_model
from antispoof.models.layers.power_spectrum import compute_by_library
from antispoof.models.layers.wavlm_pretrained import without_pretrained
from train.distill_mos import is_distill_mos, load_distill_mos
from train.losses import CENTRE
from train.recipe import ModelRecipe, Recipe


def build_model(recipe: Recipe) -> Detector:
    """Returns the network for crops of the recipe's length, its weights random (from the seed) or loaded.

    Raises:
        UserError: The crop is longer than the clip of the model, or the initial weights do not fit.
    """
    with torch.device("meta"):
        full = create_model(recipe.model.name, **recipe.model.overrides)
    crop = recipe.data.crop_samples
    if crop > full.clip_samples:
        raise UserError(f"crop_samples is {crop}, but a clip of {full.name} has {full.clip_samples} samples")
    torch.manual_seed(recipe.schedule.seed)
    overrides = {**recipe.model.overrides, "clip_samples": crop}
    if recipe.model.initial_weights:
        with without_pretrained():
            model = create_model(recipe.model.name, **overrides)
        load_weights(model, read_checkpoint(recipe.model.initial_weights))
    else:
        model = create_model(recipe.model.name, **overrides)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p *= recipe.model.dropout
    return quick(model)


def quick(model: Detector) -> Detector:
    """Returns the model in the form that is fastest where nothing is exported; it computes the same."""
    compute_by_library(model)
    # Twice as fast as the default order for these convolutions on a CPU.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def whole_clip_model(recipe: ModelRecipe, weights: dict[str, torch.Tensor]) -> Detector:
    """Returns the network that takes whole clips, in eval mode, on the device of its weights."""
    with without_pretrained():
        model = create_model(recipe.name, **recipe.overrides)
    model.load_state_dict(weights)
    return model.to(next(iter(weights.values())).device).eval()


def load_teacher(path: str | Path, crop_samples: int | None = None) -> Detector:
    """Returns a trained network that only listens, for crops of another length than its own if told.

    It may be DistillMOS (`train.distill_mos`). No weights depend on the length of what is heard.

    Raises:
        UserError: As `read_checkpoint` and `restore`; or the network scores by a cosine, and its logits were
            never trained.
    """
    checkpoint = read_checkpoint(path)
    if is_distill_mos(checkpoint):
        return load_distill_mos(checkpoint, crop_samples)
    model = restore(checkpoint)
    if hasattr(model, CENTRE):
        raise UserError(f"{path}: {model.name} scores by a cosine, and has no trained logits to teach")
    if crop_samples is not None:
        with without_pretrained():
            shorter = create_model(model.name, **{**model.overrides, "clip_samples": crop_samples})
        shorter.load_state_dict(model.state_dict())
        model = shorter
    return quick(model.eval().requires_grad_(False))


def training_mode(model: nn.Module, hold_norms: bool) -> None:
    """Sets a model to train, its batch norms to hold their statistics where told."""
    model.train()
    if hold_norms:
        for norm in _norms(model):
            norm.eval()


@contextmanager
def norms_unmoved(model: nn.Module) -> Iterator[None]:
    """Keeps the statistics of batch norms as they are while something unusual is heard."""
    tracking = [norm for norm in _norms(model) if norm.training and norm.track_running_stats]
    for norm in tracking:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]
