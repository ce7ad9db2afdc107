"""What integers do to a residual encoder, in PyTorch and with gradients, so that it can be trained for them.

The convolutions, ELUs, sums and poolings of an ONNX graph, read node by node. The gradient of rounding is
that of the identity, and of a step size as in Esser et al., "Learned step size quantization", ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from onnx import NodeProto
from torch import Tensor, nn
from torch.nn import functional as F

from quantize.calibration import Grid
from quantize.onnx_graph import attribute

OPERATIONS = ("Conv", "Elu", "Add", "MaxPool", "Relu")
LEAST_STEP = 1e-6


@dataclass(frozen=True)
class Spread:
    """The integers that a tensor may have: ``low`` to ``high``; ``zero`` is where 0 lies at the start."""

    low: int
    high: int
    zero: float


class _Round(torch.autograd.Function):
    """Rounds ``x / step + zero`` to integers in a spread, and goes back.

    The gradients of step and zero are sums over all values; the batch's first member stands for the others
    there, because these sums would take longer than the convolutions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
        whole, size = float(zero.round()), float(step)
        integers = (x * (1 / size)).add_(whole).round_()
        kept = integers.clamp(low, high)
        ctx.save_for_backward(kept == integers, x[:1], kept[:1] - whole)
        ctx.step = size
        return kept.sub_(whole).mul_(size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inside, x, steps = ctx.saved_tensors
        first = gradient[:1] * len(gradient)
        cut = first.masked_fill(inside[:1], 0)
        of_step = (first * (steps - x / ctx.step)).sum() + (cut * (x / ctx.step)).sum()
        return gradient * inside, of_step, -cut.sum() * ctx.step, None, None


class _Identity(torch.autograd.Function):
    """Rounds, with the gradient of not rounding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor) -> Tensor:
        return (x / step).round_().mul_(step)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Rounding(nn.Module):
    """Rounds one tensor; its step, which others may share, and its zero are learned."""

    def __init__(self, log_step: nn.Parameter, spread: Spread) -> None:
        super().__init__()
        self.log_step = log_step
        self.zero = nn.Parameter(torch.tensor(float(spread.zero)))
        self.bounds = spread.low, spread.high

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` rounded."""
        rounded: Tensor = _Round.apply(x, self.step, self.zero, *self.bounds)
        return rounded

    @property
    def step(self) -> Tensor:
        """The step, a tensor without axes."""
        return self.log_step.exp().clamp(min=LEAST_STEP)

    def grid(self) -> Grid:
        """Returns the grid as it now is."""
        low, high = self.bounds
        zero = min(max(round(float(self.zero.detach())), low), high)
        return Grid(float(self.step.detach()), zero, low, high)


class IntegerEncoder(nn.Module):
    """A part of an ONNX graph whose weights and grids can be trained.

    Attributes:
        weights: Weights and biases of the convolutions, by name (with ``/`` for ``.``).
        roundings: Of tensors, by name. A tensor that is not among them stays as it is.
    """

    def __init__(
        self,
        nodes: Sequence[NodeProto],
        constants: Mapping[str, Tensor],
        roundings: Mapping[str, Rounding],
        weight_limit: int,
    ) -> None:
        super().__init__()
        self.nodes = list(nodes)
        # With the channels last in memory, CPUs convolve half again and pool five times as fast.
        names = [name for node in nodes if node.op_type == "Conv" for name in node.input[1:]]
        self.weights = nn.ParameterDict(
            {_key(name): nn.Parameter(channels_last(constants[name].clone())) for name in names}
        )
        self.roundings = nn.ModuleDict(dict(roundings))
        self.weight_limit = weight_limit

    def forward(self, entry: Tensor, name: str) -> dict[str, Tensor]:
        """Returns all tensors, given the one that enters, ``(batch, channels, ..., time)``, and its name."""
        values = {name: self._rounded(name, entry)}
        for node in self.nodes:
            result = node.output[0]
            inputs = [values[source] for source in node.input if source in values]
            if node.op_type == "Conv":
                weights = [self._weight(node.input[1]), *(self.weights[_key(b)] for b in node.input[2:])]
                value = convolve(node, inputs[0], *weights)
            elif node.op_type == "Elu" and result not in self.roundings and node.input[0] in self.roundings:
                value = F.elu(inputs[0], attribute(node, "alpha", 1.0))
                value = _Identity.apply(value, cast(Rounding, self.roundings[node.input[0]]).step.detach())
            else:
                value = apply(node, inputs)
            values[result] = self._rounded(result, value)
        return values

    def _rounded(self, name: str, value: Tensor) -> Tensor:
        if name not in self.roundings:
            return value
        rounded: Tensor = cast(Rounding, self.roundings[name])(value)
        return rounded

    def _weight(self, name: str) -> Tensor:
        weight = self.weights[_key(name)]
        scale = weight.detach().abs().amax(tuple(range(1, weight.dim())), keepdim=True) / self.weight_limit
        rounded: Tensor = _Identity.apply(weight, scale.clamp(min=LEAST_STEP))
        return rounded

    def trained(self) -> dict[str, Tensor]:
        """Returns weights and biases by their names in the graph."""
        return {name.replace("/", "."): value.detach() for name, value in self.weights.items()}


def channels_last(x: Tensor) -> Tensor:
    """Returns a map, or weights of two axes, stored with the channels last; anything else as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _key(name: str) -> str:
    return name.replace(".", "/")  # a ParameterDict's keys have no dots


def convolve(node: NodeProto, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns what a Conv node makes of ``x``."""
    rank = weight.dim() - 2
    pads = attribute(node, "pads", [0] * 2 * rank)
    if any(pads):
        x = F.pad(x, [pads[end * rank + axis] for axis in reversed(range(rank)) for end in (0, 1)])
    ones = [1] * rank
    return (F.conv1d if rank == 1 else F.conv2d)(
        x,
        weight,
        bias,
        stride=attribute(node, "strides", ones),
        dilation=attribute(node, "dilations", ones),
        groups=attribute(node, "group", 1),
    )


def apply(node: NodeProto, inputs: Sequence[Tensor]) -> Tensor:
    """Returns what a node without weights makes of its inputs."""
    if node.op_type == "Add":
        return inputs[0] + inputs[1]
    if node.op_type == "Relu":
        return F.relu(inputs[0])
    if node.op_type == "Elu":
        return F.elu(inputs[0], attribute(node, "alpha", 1.0))
    kernel = attribute(node, "kernel_shape")
    strides = attribute(node, "strides", [1] * len(kernel))
    return (F.max_pool1d if len(kernel) == 1 else F.max_pool2d)(inputs[0], kernel, strides)


def plain(
    nodes: Sequence[NodeProto], constants: Mapping[str, Tensor], entry: Tensor, name: str
) -> dict[str, Tensor]:
    """Returns all tensors of the float graph, given the one that enters and its name."""
    values = {name: entry}
    for node in nodes:
        inputs = [values[source] for source in node.input if source in values]
        if node.op_type == "Conv":
            values[node.output[0]] = convolve(node, inputs[0], *(constants[n] for n in node.input[1:]))
        else:
            values[node.output[0]] = apply(node, inputs)
    return values
