"""Static quantization of an ONNX graph: integers between convolutions, by Quantize- and DequantizeLinear.

    1. take the layers in scope, and the sums, poolings and activations between them   (`find_region`)
    2. count the values of every tensor that will be integers, over the calibration clips
    3. choose their grids
    4. rewrite the graph around those tensors; ONNX Runtime fuses what stands between Dequantize and Quantize

Three things differ from inserting the pairs everywhere:

An ELU costs as much as the convolution in front of it, because ONNX Runtime has no 8-bit one. But it has an
8-bit sigmoid, which looks its 256 values up in a table, and far below zero a sigmoid is an exponential. So
``ELU(x) = max(x, 0) + alpha (exp(min(x, 0)) - 1)`` is built of a Clip, a Sigmoid and an Add (`_elu`): 7
instead of 26 ms in the first block of AASIST-L, as little as a ReLU.

A map of one channel in front of the first convolution has the waveform's range from loud to quiet, which no
256 steps span. It becomes `SPLITS` channels, each a slice of the range, that add up to it (`_split`). That is
exact to more than 10 bits, the convolution's weights are just repeated, and with 8 channels it even runs
faster.

The score's mean error over the calibration clips is taken off at the end: maxima over noisy values are
biased.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto

from quantize.calibration import Grid, Histogram, Observer, observe, widened
from quantize.onnx_graph import QDQ_16_BIT_OPSET, OnnxGraph, attribute
from quantize.recipes import Recipe
from quantize.scope import Layer, layers_in_scope, recurrent_layers
from quantize.weights import fold_weights, store_weights
from runtimes.ort import open_session

SPLITS = 8  # channels for a map of one; one of them holds what is negative
EXPONENTIAL = 6.0  # how far below zero the sigmoid is read: exp(-6) is less than half a step of 256
LEAST_EXPONENTIAL = 5.0  # a tensor that ends nearer to zero keeps its ELU: there a sigmoid is a straight line
ELU_LOWEST = -4.5  # where alpha * exp(x) is below 0.02, less than any step here
MIXED_SHARE = 0.03  # with "mixed", layers whose map is this small beside the largest keep float activations
BETWEEN = ("Elu", "Add", "MaxPool", "Relu")
BIAS_LIMIT = 2.0**30  # in steps of the 32-bit accumulator, which the products need the rest of
DTYPES = {(8, False): np.uint8, (8, True): np.int8, (16, False): np.uint16, (16, True): np.int16}


@dataclass
class Region:
    """The part of a graph that works on integers.

    Attributes:
        layers: Layers with integer weights and activations.
        inside: Activations, sums and poolings between them.
        entries: Float tensors that the layers read.
        tensors: Tensors made inside, in order.
    """

    layers: list[Layer]
    inside: list[NodeProto] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)


def find_region(graph: OnnxGraph, layers: Sequence[Layer]) -> Region:
    """Returns what works on integers, given the layers that do.

    A projection (MatMul, Gemm) reads integers and returns float: ONNX Runtime has a kernel for just that.
    """
    region = Region(list(layers))
    chosen = {id(layer.node): layer for layer in layers}
    known: set[str] = set()
    for node in graph.nodes:
        layer = chosen.get(id(node))
        if layer is not None:
            if node.input[0] not in known and node.input[0] not in region.entries:
                region.entries.append(node.input[0])
            made = layer.is_convolution
        else:
            # A sum of a tensor and a constant is no residual sum.
            made = node.op_type in BETWEEN and all(name in known for name in node.input)
            if made:
                region.inside.append(node)
        if made:
            known.add(node.output[0])
            region.tensors.append(node.output[0])
    return region


def histograms(model: ModelProto, tensors: Sequence[str], clips: np.ndarray) -> dict[str, Histogram]:
    """Returns the values of each tensor over ``clips (clips, samples)``, and an empty dict for no tensor."""
    if not tensors:
        return {}
    observed = ModelProto.FromString(model.SerializeToString())
    input_name = observed.graph.input[0].name
    del observed.graph.output[:]
    observed.graph.output.extend(ValueInfoProto(name=name) for name in tensors)
    session = open_session(observed.SerializeToString(), threads=1)
    found = {name: Histogram() for name in tensors}
    for clip in clips:
        for name, values in zip(tensors, session.run(list(tensors), {input_name: clip[None]}), strict=True):
            found[name].add(values)
    return found


@dataclass(frozen=True)
class Calibrated:
    """A model with the ranges of its tensors, from which any number of quantized ones can be made."""

    model: ModelProto
    recipe: Recipe
    grids: dict[str, Grid]
    small: frozenset[str]  # outputs of the layers that keep float activations
    largest: dict[str, float]  # of each entry

    def quantize(self, widths: Mapping[str, float] | None = None) -> ModelProto:
        """Returns the quantized model; ``widths`` multiplies the ranges of some tensors."""
        widths = widths or {}
        grids = {name: widened(grid, widths.get(name, 1.0)) for name, grid in self.grids.items()}
        graph = OnnxGraph(self.model)
        layers = layers_in_scope(graph, self.recipe.everything)
        small = [layer for layer in layers if layer.node.output[0] in self.small]
        for layer in (*small, *recurrent_layers(graph)):
            fold_weights(graph, layer, self.recipe)
        kept = [layer for layer in layers if layer.node.output[0] not in self.small]
        return Rewriter(graph, self.recipe, find_region(graph, kept), grids, self.largest).rewrite()


def calibrate(model: ModelProto, recipe: Recipe, clips: np.ndarray, observer: Observer) -> Calibrated:
    """Runs the model over ``clips (clips, samples)`` and returns it with the ranges of its tensors."""
    graph = OnnxGraph(model)
    layers = layers_in_scope(graph, recipe.everything)
    region = find_region(graph, layers)
    seen = histograms(model, [*region.entries, *region.tensors], clips)
    small: frozenset[str] = frozenset()
    if recipe.mixed:
        small = _small(layers, seen)
        kept = [layer for layer in layers if layer.node.output[0] not in small]
        region = find_region(graph, kept)
    wanted = [*region.entries, *region.tensors]
    grids = {name: _observed(graph, name, seen[name], recipe, observer) for name in wanted}
    largest = {name: float(seen[name].table()[0][-1]) for name in region.entries}
    return Calibrated(model, recipe, grids, small, largest)


def _observed(graph: OnnxGraph, name: str, seen: Histogram, recipe: Recipe, observer: Observer) -> Grid:
    bits, signed = recipe.activation_bits, recipe.signed_activations
    elus = [node for node in graph.consumers(name) if node.op_type == "Elu"]
    if not elus:
        return observe(seen, observer, bits=bits, signed=signed)
    alpha = attribute(elus[0], "alpha", 1.0)
    return observe(
        seen,
        observer,
        bits=bits,
        signed=signed,
        lowest=ELU_LOWEST,
        through=lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    )


def saturates(node: NodeProto, grids: Mapping[str, Grid]) -> bool:
    """Whether a node is a ReLU whose result has 0 for its lowest integer, so that rounding does all of it."""
    if node.op_type != "Relu" or not {node.input[0], node.output[0]} <= set(grids):
        return False
    grid = grids[node.output[0]]
    return grid.zero == grid.low


class Rewriter:
    """Puts integers into one graph."""

    def __init__(
        self,
        graph: OnnxGraph,
        recipe: Recipe,
        region: Region,
        grids: dict[str, Grid],
        largest: dict[str, float],
    ) -> None:
        self.graph = graph
        self.recipe = recipe
        self.region = region
        self.largest = largest
        self.grids = self._shared(grids)
        self.integers: dict[str, tuple[str, Grid]] = {}  # a float tensor, and the integers that stand for it
        self.least = self._least_scales()

    def rewrite(self) -> ModelProto:
        """Returns the rewritten model."""
        splits = {name: self._split(name) for name in self.split_entries()}
        for name in self.region.entries:
            if name not in splits:
                self._quantize_tensor(name, self.grids[name])
        inside = {id(node) for node in self.region.inside}
        by_node = {id(layer.node): layer for layer in self.region.layers}
        for node in list(self.graph.nodes):
            if id(node) in by_node:
                self._layer(by_node[id(node)], splits)
            elif id(node) in inside:
                self._between(node)
        needs_16 = self.recipe.activation_bits == 16 or self.recipe.weight_bits == 4
        return self.graph.finish(QDQ_16_BIT_OPSET if needs_16 else None)

    def _shared(self, grids: dict[str, Grid]) -> dict[str, Grid]:
        """Returns the grids such that the two ends of a ReLU, a pooling or a lookup share theirs."""
        grids = dict(grids)
        for node in reversed(self.region.inside):
            source, result = node.input[0], node.output[0]
            if node.op_type == "MaxPool":
                grids[source] = grids[result]  # the maximum of rounded values is the rounded maximum
            elif saturates(node, grids):
                grids[source] = grids[result]  # what is below 0 takes no integer but the lowest, which is 0
            elif node.op_type == "Elu" and source in grids and self._can_look_up(grids[source]):
                # One step for both, so that positive values pass unchanged.
                lowest = math.ceil(attribute(node, "alpha", 1.0) / grids[source].scale)
                grids[result] = Grid(grids[source].scale, min(lowest, 255), 0, 255)
        return grids

    def looks_up(self, node: NodeProto) -> bool:
        """Whether an ELU becomes operations on 8-bit integers."""
        return node.input[0] in self.grids and self._can_look_up(self.grids[node.input[0]])

    def split_entries(self) -> list[str]:
        """Returns the entries that become slices."""
        return [name for name in self.region.entries if self._can_split(name)]

    def _least_scales(self) -> dict[str, np.ndarray]:
        """Returns, for the weights of each layer with a bias, the scales at which that fits 32-bit integers.

        Where a channel's weights are next to nothing, as those of a channel that training gave up are,
        their own scale would make its bias a number that no accumulator holds. ONNX Runtime rounds biases
        that are left in float32 likewise.
        """
        splits = self.split_entries()
        least: dict[str, np.ndarray] = {}
        for layer in self.region.layers:
            if layer.bias is not None:
                source = layer.node.input[0]
                step = self.split_step(source) if source in splits else self.grids[source].scale
                bias = np.abs(self.graph.constants[layer.bias].astype(np.float64))
                own = bias / (BIAS_LIMIT * np.float32(step))
                least[layer.weight] = np.maximum(own, least.get(layer.weight, 0.0))
        return least

    @property
    def split_steps(self) -> int:
        """How many integers a slice has above 0."""
        return 2 ** (8 - self.recipe.signed_activations) - 1

    def split_step(self, name: str) -> float:
        """Returns the step of an entry's slices."""
        return float(np.float32(max(self.largest[name], 1e-6) / (SPLITS - 1) / self.split_steps))

    def _can_look_up(self, grid: Grid) -> bool:
        return (grid.low, grid.high) == (0, 255) and grid.scale * (255 - grid.zero) >= LEAST_EXPONENTIAL

    def _pair(self, name: str, grid: Grid) -> tuple[str, str]:
        """Adds Quantize and Dequantize behind a tensor; returns the integers and the rounded tensor."""
        scale, zero = self._parameters(grid)
        integers = self.graph.add("QuantizeLinear", [name, scale, zero])
        return integers, self.graph.add("DequantizeLinear", [integers, scale, zero])

    def _parameters(self, grid: Grid) -> tuple[str, str]:
        dtype = DTYPES[self.recipe.activation_bits, self.recipe.signed_activations]
        return self.graph.constant(np.float32(grid.scale)), self.graph.constant(np.array(grid.zero, dtype))

    def _quantize_tensor(self, name: str, grid: Grid, readers: list[NodeProto] | None = None) -> None:
        """Makes the readers of a tensor read it rounded; by default those in the region that it enters."""
        if readers is None:
            readers = self.graph.consumers(name)
            if name in self.region.entries:
                chosen = {id(layer.node) for layer in self.region.layers}
                readers = [node for node in readers if id(node) in chosen]
        integers, rounded = self._pair(name, grid)
        self.graph.rename(name, rounded, readers)
        self.integers[rounded] = integers, grid

    def _layer(self, layer: Layer, splits: dict[str, tuple[str, float]]) -> None:
        """Rounds a layer's weights, bias and output. Its input is rounded already."""
        source, least = layer.node.input[0], self.least.get(layer.weight, 0.0)
        if source in splits:
            rounded, step = splits[source]
            self._repeat_weights(layer)
            layer = Layer(layer.node, layer.node.input[1], layer.axis, layer.bias)
            self.graph.rename(source, rounded, [layer.node])
        else:
            step = self.integers[source][1].scale
        scales = store_weights(self.graph, layer, self.recipe, least)
        if layer.is_convolution:
            if layer.bias is not None and self.recipe.activation_bits == 8:
                self._round_bias(layer, scales * np.float32(step))
            self._quantize_tensor(layer.node.output[0], self.grids[layer.node.output[0]])

    def _round_bias(self, layer: Layer, scale: np.ndarray) -> None:
        """Stores a bias in the accumulator's 32-bit integers, as the fused kernel wants it."""
        assert layer.bias is not None
        integers = np.rint(self.graph.constants[layer.bias].astype(np.float64) / scale)
        limits = np.iinfo(np.int32)
        names = (
            self.graph.constant(np.clip(integers, limits.min, limits.max).astype(np.int32)),
            self.graph.constant(scale.astype(np.float32)),
        )
        rounded = self.graph.add("DequantizeLinear", names, axis=0)
        self.graph.rename(layer.bias, rounded, [layer.node])

    def _between(self, node: NodeProto) -> None:
        result = node.output[0]
        if node.op_type == "Elu" and node.input[0] in self.integers:
            integers, grid = self.integers[node.input[0]]
            if self._can_look_up(grid):
                self._elu(node, integers, grid, self.grids[result])
                return
        self._quantize_tensor(result, self.grids[result])

    def _elu(self, node: NodeProto, integers: str, grid: Grid, result_grid: Grid) -> None:
        """Replaces an ELU by operations that exist on 8-bit integers.

        Reading the integers with a higher zero point shifts x to x - c, and sigmoid(x - c) is exp(x - c) to
        within exp(-c). Quantized so that its value at x = 0 is the largest integer, it saturates for
        positive x; read back as ``alpha (q - 255) / 255`` it is the negative half of the ELU.
        """
        alpha = attribute(node, "alpha", 1.0)
        scale, zero = self._parameters(grid)
        shift = min(round(EXPONENTIAL / grid.scale), 255 - grid.zero)
        at_zero = 1 / (1 + math.exp(grid.scale * shift))
        shifted = self.graph.add(
            "DequantizeLinear", [integers, scale, self.graph.constant(np.uint8(grid.zero + shift))]
        )
        exponential = self.graph.add("Sigmoid", [shifted])
        table = Grid(at_zero / 255, 0, 0, 255)
        table_integers = self.graph.add("QuantizeLinear", [exponential, *self._parameters(table)])
        negative = self.graph.add(
            "DequantizeLinear", [table_integers, *self._parameters(Grid(alpha / 255, 255, 0, 255))]
        )
        clipped = self.graph.add("Clip", [integers, zero])
        positive = self.graph.add("DequantizeLinear", [clipped, scale, zero])
        readers = self.graph.consumers(node.output[0])
        self.graph.remove(node)
        total = self.graph.add("Add", [positive, negative], node.output[0])
        self._quantize_tensor(total, result_grid, readers)

    def _can_split(self, name: str) -> bool:
        """Whether a tensor is a map of one channel that convolutions read."""
        readers = [layer for layer in self.region.layers if layer.node.input[0] == name]
        shapes = [self.graph.constants[layer.weight].shape for layer in readers]
        return (
            not self.recipe.everything
            and self.recipe.activation_bits == 8
            and all(
                layer.is_convolution and shape[1] == 1 and attribute(layer.node, "group", 1) == 1
                for layer, shape in zip(readers, shapes, strict=True)
            )
        )

    def _split(self, name: str) -> tuple[str, float]:
        """Adds the slices of a map ``(batch, 1, ...)`` as channels; returns them rounded, and their step.

        Channel 0 is what lies below zero, channel i > 0 what lies between (i - 1) and i times the range of
        the integers; Quantize saturates at both ends, so every channel is 0 outside its slice, and so is
        padding.
        """
        steps, step = self.split_steps, self.split_step(name)
        rank = self.graph.constants[
            next(layer.weight for layer in self.region.layers if layer.node.input[0] == name)
        ].ndim
        shape = (1, SPLITS, *[1] * (rank - 2))
        sign = np.array([-1.0] + [1.0] * (SPLITS - 1), np.float32).reshape(shape)
        start = np.float32(-steps * step * np.maximum(np.arange(SPLITS) - 1, 0)).reshape(shape)
        slices = self.graph.add("Mul", [name, self.graph.constant(sign)])
        slices = self.graph.add("Add", [slices, self.graph.constant(start)])
        _, rounded = self._pair(slices, Grid(step, 0, 0, steps))
        return rounded, step

    def _repeat_weights(self, layer: Layer) -> None:
        weights = self.graph.constants[layer.weight]
        sign = np.array([-1.0] + [1.0] * (SPLITS - 1), np.float32).reshape(
            1, SPLITS, *[1] * (weights.ndim - 2)
        )
        repeated = self.graph.constant(np.repeat(weights, SPLITS, axis=1) * sign, f"{layer.weight}.split")
        self.graph.rename(layer.weight, repeated, [layer.node])


def _small(layers: Sequence[Layer], seen: dict[str, Histogram]) -> frozenset[str]:
    """Returns the outputs of the layers that would gain little time as integers."""
    sizes = {
        layer.node.output[0]: int(seen[layer.node.output[0]].counts.sum())
        for layer in layers
        if layer.is_convolution
    }
    most = max(sizes.values(), default=0)
    names = [layer.node.output[0] for layer in layers]
    return frozenset(name for name in names if sizes.get(name, 0) < MIXED_SHARE * most)
