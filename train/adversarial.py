"""Adversarial training: the fast gradient method on a detector's embedding.

Miyato et al., "Adversarial training methods for semi-supervised text classification", arXiv 1605.07725,
eq. 5: each clip's embedding moves by epsilon along the gradient of the loss, and the loss there is made
smaller too.
For a detector on WavLM the embedding is what its transformer reads; for others, the output of the front end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from antispoof.errors import UserError
from antispoof.models import Detector
from train.network import norms_unmoved
from train.recipe import AdversarialRecipe


class Adversary:
    """Listens to one layer's output, and pushes it."""

    def __init__(self, model: Detector, recipe: AdversarialRecipe) -> None:
        """Finds the layer.

        Raises:
            UserError: The model has no module of that name.
        """
        modules = dict(model.named_modules())
        if not recipe.layer or recipe.layer not in modules:
            parts = ", ".join(name for name, _ in model.named_children())
            raise UserError(
                f"adversarial.layer: {model.name} has no part {recipe.layer!r}; there are {parts}, and theirs"
            )
        self._model, self._name = model, recipe.layer
        self._layer, self._epsilon = modules[recipe.layer], recipe.epsilon
        self._embedding: Tensor | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keeps the embedding of the forward passes inside, so that it has a gradient afterwards."""
        with _hooked(self._layer, self._keep):
            yield

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Adds the push, by the gradient that is there now, to the embedding of the forward passes inside."""
        push = self.push()
        with norms_unmoved(self._model), _hooked(self._layer, lambda _module, _inputs, output: output + push):
            yield

    def push(self) -> Tensor:
        """Returns the gradient of each clip's embedding at the length epsilon."""
        assert self._embedding is not None
        gradient = self._embedding.grad
        assert gradient is not None
        length = torch.linalg.vector_norm(gradient.float().flatten(1), dim=1).clamp(min=1e-12)
        return self._epsilon * gradient / length.view(-1, *[1] * (gradient.dim() - 1)).to(gradient)

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise UserError(f"adversarial.layer: {self._name} returns more than one tensor; name another")
        # Behind frozen weights there is no gradient yet; from here on there is one.
        embedding = output if output.requires_grad else output.detach().requires_grad_()
        if not embedding.is_leaf:
            embedding.retain_grad()
        self._embedding = embedding
        return embedding


@contextmanager
def _hooked(layer: nn.Module, hook: Any) -> Iterator[None]:
    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
