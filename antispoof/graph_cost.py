"""What a graph of any format computes, and what each of its nodes costs: multiply-adds, elements, bytes.

A graph is a plain list of nodes here, whichever file it was read from (see `runtimes.graphs`). Kinds keep
the names of their format (``Conv``, ``CONV_2D``, ``conv``), which do not meet; a node's first inputs are
those that its kind multiplies, in the order of its format.

A multiply-add is one product of a matrix or convolution with its sum. Element-wise work counts no
multiply-adds; it is told by the number of elements that are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RANDOM_KINDS = frozenset(
    {
        *(
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "Bernoulli",
            "Multinomial",
        ),
        *("RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "MULTINOMIAL", "STABLEHLO_RNG_BIT_GENERATOR"),
        *("random_normal", "random_uniform", "random_bernoulli", "random_categorical"),
        "Dropout",
    }
)
SHAPE_KINDS = frozenset({"Shape", "Size", "SHAPE", "RANK", "shape"})


@dataclass(frozen=True)
class Value:
    """A tensor of a graph.

    Attributes:
        dtype: NumPy's name of its type, or the format's own where NumPy has none.
        shape: Its shape; None where the file does not tell.
        constant: Its content, where the file holds it.
    """

    dtype: str
    shape: tuple[int, ...] | None
    constant: np.ndarray | None = None

    @property
    def elements(self) -> int:
        """How many elements it has; 0 where that is unknown."""
        return 0 if self.shape is None else math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        try:
            width = np.dtype(self.dtype).itemsize
        except TypeError:  # narrower than a byte, as int4 is, or text
            width = 1
        return self.elements * width


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        kind: What is done, by the name that its format has for it.
        name: What messages call it.
        inputs: Names of the values it takes; an empty name is an input left out.
        outputs: Names of the values it gives.
        attributes: What else its format says of it, as numbers, texts and lists.
        body: The operations that it repeats, if it is a loop.
        repeats: How often it does so.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    body: tuple[Node, ...] = ()
    repeats: int = 1


@dataclass(frozen=True)
class Graph:
    """A model as a list of nodes, each after those that it depends on.

    Attributes:
        format: A name of `antispoof.formats`.
        nodes: What is computed at every run (see `fold`).
        values: Every tensor by name.
        inputs: Names of what a run is given.
        outputs: Names of what a run gives.
        facts: What the file says of itself under this project's key, as JSON; None if nothing.
        dynamic: Inputs whose shape a run decides, with that shape in words; their values here have 1 there.
        fixed: Names of the values that are the same at every run.
        outside: Files beside the model that hold weights of it.
    """

    format: str
    nodes: tuple[Node, ...]
    values: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: str | None
    dynamic: tuple[str, ...] = ()
    fixed: frozenset[str] = frozenset()
    outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What something costs at every run.

    Attributes:
        macs: Multiply-adds of products of matrices and convolutions.
        elements: Elements that are computed.
        bytes_read: Size of what is read, weights included.
        bytes_written: Size of what is written.
        unknown: How many nodes have outputs of unknown shape, and so no part in the rest.
    """

    macs: int = 0
    elements: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    unknown: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.elements + other.elements,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
            self.unknown + other.unknown,
        )

    def times(self, count: int) -> Cost:
        """Returns the cost of doing it ``count`` times."""
        return Cost(
            self.macs * count,
            self.elements * count,
            self.bytes_read * count,
            self.bytes_written * count,
            self.unknown,
        )


def node_cost(node: Node, values: Mapping[str, Value]) -> Cost:
    """Returns what one node costs; a loop costs its body times its repeats."""
    if node.body:
        return total_cost(node.body, values).times(node.repeats)
    taken = [values[name] for name in node.inputs if name]
    given = [values[name] for name in node.outputs if name]
    rule = _RULES.get(node.kind.rpartition(":")[2])
    if any(value.shape is None for value in given) or (rule and any(v.shape is None for v in taken)):
        return Cost(unknown=1)
    try:
        macs = rule(_Terms(node, values)) if rule else 0
    except IndexError:  # fewer inputs or axes than its kind has: a damaged file
        return Cost(unknown=1)
    return Cost(
        macs,
        sum(value.elements for value in given),
        sum(value.bytes for value in taken),
        sum(value.bytes for value in given),
    )


def total_cost(nodes: Iterable[Node], values: Mapping[str, Value]) -> Cost:
    """Returns what nodes cost together."""
    return sum((node_cost(node, values) for node in nodes), Cost())


def fold(nodes: Iterable[Node], values: Mapping[str, Value]) -> tuple[tuple[Node, ...], frozenset[str]]:
    """Returns the nodes that every run computes, and the names of the values that are always the same.

    What follows from constants and from known shapes alone, runtimes compute on loading.
    """
    fixed = {name for name, value in values.items() if value.constant is not None} | {""}
    kept = []
    for node in nodes:
        shapes = node.kind in SHAPE_KINDS and all(values[name].shape is not None for name in node.inputs)
        if node.kind not in RANDOM_KINDS and (shapes or fixed.issuperset(node.inputs)):
            fixed.update(node.outputs)
        else:
            kept.append(node)
    return tuple(kept), frozenset(fixed)


@dataclass(frozen=True)
class _Terms:
    """A node's shapes, for the rules below."""

    node: Node
    values: Mapping[str, Value]

    def shape(self, index: int) -> tuple[int, ...]:
        return self.values[self.node.inputs[index]].shape or ()

    def size(self, index: int) -> int:
        return math.prod(self.shape(index))

    @property
    def output(self) -> int:
        return self.values[self.node.outputs[0]].elements

    def flag(self, *names: str) -> bool:
        return any(bool(self.node.attributes.get(name)) for name in names)


def _convolution(weight: int = 1, channels: int = 0) -> Callable[[_Terms], int]:
    """Every output element takes the weights of its channel, which lies on the axis ``channels``."""
    return lambda t: t.output * t.size(weight) // max(t.shape(weight)[channels], 1)


def _transposed(data: int, weight: int, channels: int) -> Callable[[_Terms], int]:
    """Every input element is spread by the weights of its channel."""
    return lambda t: t.size(data) * t.size(weight) // max(t.shape(weight)[channels], 1)


def _product(data: int = 0, *flips: str) -> Callable[[_Terms], int]:
    """Every output element is a sum over the inner axis of a factor: its last, unless it is turned."""

    def macs(t: _Terms) -> int:
        shape = t.shape(data)
        return t.output * (shape[-2] if t.flag(*flips) and len(shape) > 1 else shape[-1] if shape else 1)

    return macs


def _recurrent(t: _Terms) -> int:
    """Weights of input and state ``(directions, gates, width)``, at each of ``(steps, batch)``."""
    steps = math.prod(t.shape(0)[:2])
    return steps * (t.size(1) + t.size(2))


def _einsum(t: _Terms) -> int:
    """The product of all its indices' sizes."""
    terms = str(t.node.attributes.get("equation", "")).replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = t.shape(index)
        head, dots, tail = term.partition("...")
        named = list(zip(head, shape, strict=False)) + list(zip(tail[::-1], shape[::-1], strict=False))
        sizes.update(named)
        if dots:
            sizes["..."] = math.prod(shape[len(head) : len(shape) - len(tail)])
    return math.prod(sizes.values())


_RULES: dict[str, Callable[[_Terms], int]] = {
    # ONNX
    "Conv": _convolution(),
    "FusedConv": _convolution(),
    "ConvInteger": _convolution(),
    "QLinearConv": _convolution(weight=3),
    "ConvTranspose": _transposed(0, 1, 0),
    "MatMul": _product(),
    "FusedMatMul": _product(0, "transA"),
    "MatMulInteger": _product(),
    "MatMulNBits": _product(),
    "DynamicQuantizeMatMul": _product(),
    "QLinearMatMul": _product(),
    "Gemm": _product(0, "transA"),
    "Einsum": _einsum,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "RNN": _recurrent,
    # TFLite
    "CONV_2D": _convolution(),
    "DEPTHWISE_CONV_2D": _convolution(channels=3),
    "TRANSPOSE_CONV": _transposed(2, 1, 3),
    "FULLY_CONNECTED": _product(1),
    "BATCH_MATMUL": _product(0, "adjX"),
    # MIL
    "conv": _convolution(),
    "conv_transpose": _transposed(0, 1, 0),
    "linear": _product(1),
    "matmul": _product(0, "transpose_x"),
    "einsum": _einsum,
}
