"""Low-rank adapters on linear layers: trained beside frozen weights, merged into them before export.

Hu et al., "LoRA: low-rank adaptation of large language models", arXiv 2106.09685, sec. 4.1. Names and
numbers are those of the ``peft`` package, so that its checkpoints load; the package itself is not needed.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from antispoof.errors import CheckFailed

MERGE_TOLERANCE = 1e-5  # of the output's largest magnitude, or absolute where that is below 1
PROBE_FRAMES = 64


class OneAdapter(nn.Module):
    """A linear layer under the name that ``peft`` gives to the first adapter."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.default = nn.Linear(in_features, out_features, bias=False)


class LoraLinear(nn.Module):
    """``base_layer(x) + alpha / rank * B A x``; B starts at zero, so that training starts from the base."""

    def __init__(self, base_layer: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.scaling = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.lora_A: OneAdapter | None = OneAdapter(base_layer.in_features, rank)
        self.lora_B: OneAdapter | None = OneAdapter(rank, base_layer.out_features)
        nn.init.zeros_(self.lora_B.default.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(..., out)`` for ``x (..., in)``."""
        y: Tensor = self.base_layer(x)
        if self.lora_A is None or self.lora_B is None:
            return y
        return y + self.lora_B.default(self.lora_A.default(self.dropout(x))) * self.scaling

    def freeze(self) -> None:
        """Merges the adapter into the weights and checks that the layer still does what it did.

        Raises:
            CheckFailed: The outputs differ by more than `MERGE_TOLERANCE`.
        """
        if self.lora_A is None or self.lora_B is None:
            return
        weight = self.base_layer.weight
        seeded = torch.Generator().manual_seed(0)
        probe = torch.randn(PROBE_FRAMES, weight.shape[1], generator=seeded).to(weight)
        before = self(probe)
        weight += self.scaling * (self.lora_B.default.weight @ self.lora_A.default.weight)
        self.lora_A = self.lora_B = None
        worst = float((self(probe) - before).abs().max())
        allowed = MERGE_TOLERANCE * max(1.0, float(before.abs().max()))
        if not worst <= allowed:
            raise CheckFailed(
                f"merging a LoRA adapter changed the layer's output by {worst:.1e} (at most {allowed:.1e})"
            )


def add_lora(
    model: nn.Module,
    names: Collection[str] = ("q_proj", "v_proj"),
    rank: int = 8,
    alpha: float = 32,
    dropout: float = 0.1,
) -> None:
    """Freezes all of ``model`` and puts a trainable adapter on each of its linear layers called ``names``."""
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in names and isinstance(child, nn.Linear):
                setattr(parent, name, LoraLinear(child, rank, alpha, dropout))
