"""Several processes that train one network, as torchrun starts them: ``torchrun --nproc-per-node 2 ...``.

Every rank holds the same weights. The ranks prepare the batches in turn and hand each to all; each hears its
share of it; gradients are averaged; batch norms take their statistics over all ranks. So the recipe's batch
is that of all ranks together, and the result does not depend on how many there are, up to the order of sums
(and dropout, which each rank draws for itself).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from antispoof.models.layers.graph import NodeBatchNorm

LONGEST_WAIT = timedelta(days=1)
SEED_BITS = 27  # below the rank in a seed: as many steps as a recipe may ask for


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; by default there is no other."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows the progress."""
        return self.rank == 0

    def seed(self, step: int) -> int:
        """Returns a number for the step that differs between ranks."""
        return (self.rank << SEED_BITS) + step

    def wait(self) -> None:
        """Waits for all ranks."""
        if self.count > 1:
            distributed.barrier()

    def hand_round(self, tensors: Iterable[Tensor], owner: int) -> None:
        """Overwrites ``tensors`` by those of the rank ``owner``."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, owner)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites each of ``tensors`` by its mean over the ranks, in one message."""
        if self.count == 1:
            return
        every = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in every])
        distributed.all_reduce(flat)
        flat /= self.count
        parts = flat.split([tensor.numel() for tensor in every])
        for tensor, part in zip(every, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def join_ranks(device: torch.device) -> Ranks:
    """Returns this process's place among those that torchrun started, or alone."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Ranks()
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # One rank validates, or asks the teachers, while the others wait.
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def leave_ranks() -> None:
    """Says goodbye to the other ranks."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks; so is its gradient."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


class SharedBatchNorm(_BatchNorm):
    """A batch norm whose statistics in training are those of all ranks, on any device."""

    def _check_input_dim(self, _input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x (batch, channels, ...)`` normalised."""
        if not self.training:
            return super().forward(x)
        axes = [0, *range(2, x.dim())]
        shape = (1, -1, *[1] * (x.dim() - 2))
        ranks = distributed.get_world_size()
        count = ranks * x.numel() // x.shape[1]
        mean = _SumOverRanks.apply(x.float().mean(axes)) / ranks
        centred = x - mean.view(shape)
        variance = _SumOverRanks.apply(centred.square().mean(axes)) / ranks
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        return y * self.weight.view(shape) + self.bias.view(shape) if self.affine else y


class SharedNodeBatchNorm(SharedBatchNorm):
    """The same of features that lie last, as `NodeBatchNorm` has them."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x (batch, nodes, features)`` normalised over batch and nodes."""
        return super().forward(x.flatten(0, 1)).view_as(x)


def share_norms(model: nn.Module) -> None:
    """Replaces every batch norm, in place, by one over all ranks; names and weights stay."""
    device = next(model.parameters()).device
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                kind = SharedNodeBatchNorm if isinstance(child, NodeBatchNorm) else SharedBatchNorm
                shared = kind(
                    *(child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats)
                )
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared.to(device))
