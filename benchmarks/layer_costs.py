"""Lists what each layer of a model costs: multiply-adds, weights, bytes written, bytes that live meanwhile.

A PyTorch model is run once and watched, operation by operation; of a model file the graph is read. Live are
the input and every result that something later still needs. A runtime may do better than a graph says, by
writing over what it reads, or worse, by copying into another layout.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from antispoof.graph_cost import Graph, Node, Value, node_cost

# What only says how to read the same bytes; runtimes do it without a copy.
# Kinds in lower case without underscores, which is how the formats differ.
VIEWS = frozenset({"reshape", "squeeze", "unsqueeze", "expanddims", "flatten", "identity"})
# Products with a vector, which the registry leaves out: each element of this argument is multiplied once.
VECTOR_PRODUCTS = {torch.ops.aten.mv: 0, torch.ops.aten.dot: 0, torch.ops.aten.addmv: 1}
NO_WEIGHTS = ("int64", "bool")  # constants of these types are shapes, axes and masks


@dataclass(frozen=True)
class Layer:
    """What one layer costs in a run of one clip.

    Attributes:
        name: The module's path, or the node's name.
        kind: The module's class, or the node's operator.
        macs: Multiply-adds of matrix products and convolutions.
        parameters: Weights of its own; what two layers share counts for the first.
        bytes_written: Size of the results it makes.
        live_bytes: The most that lives at once while it runs, weights not counted.
    """

    name: str
    kind: str
    macs: int
    parameters: int
    bytes_written: int
    live_bytes: int


def graph_layers(graph: Graph) -> list[Layer]:
    """Returns the cost of every node of a model file's graph, in its order."""
    places = _Places(graph)
    layers = []
    seen: set[str] = set()
    for index, node in enumerate(graph.nodes):
        weights = [name for name in node.inputs if name not in seen and _is_weight(graph.values.get(name))]
        seen.update(weights)
        layers.append(
            Layer(
                node.name,
                node.kind,
                node_cost(node, graph.values).macs,
                sum(graph.values[name].elements for name in weights),
                sum(graph.values[name].bytes for name in node.outputs if places.made_at.get(name) == index),
                places.live_bytes(index),
            )
        )
    return layers


def _is_weight(value: Value | None) -> bool:
    return value is not None and value.constant is not None and value.dtype not in NO_WEIGHTS


class _Places:
    """When each value of a graph that takes memory of its own is made and last needed, by node index."""

    def __init__(self, graph: Graph) -> None:
        self.values = graph.values
        self.made_at = dict.fromkeys(graph.inputs, -1)
        self.last_needed = dict.fromkeys(graph.inputs, -1)
        owner: dict[str, str] = {}
        for index, node in enumerate(graph.nodes):
            taken = [owner.get(name, name) for name in node.inputs]
            self.last_needed.update({name: index for name in taken if name in self.made_at})
            if _is_view(node) and taken[0] in self.made_at:
                owner[node.outputs[0]] = taken[0]
                continue
            for name in filter(None, node.outputs):
                self.made_at[name] = self.last_needed[name] = index
        for name in graph.outputs:
            self.last_needed[owner.get(name, name)] = len(graph.nodes)

    def live_bytes(self, index: int) -> int:
        """Returns the size of all that is there while a node runs."""
        return sum(
            self.values[name].bytes
            for name, made in self.made_at.items()
            if made <= index <= self.last_needed[name]
        )


def _is_view(node: Node) -> bool:
    return node.kind.replace("_", "").lower() in VIEWS


def module_layers(model: nn.Module, *inputs: Tensor) -> list[Layer]:
    """Returns the cost of every module that computes something itself, in the order of their first work.

    Args:
        model: Run once, as it is, without gradients.
        *inputs: What it is run on.
    """
    watch = _Watch(model)
    for tensor in inputs:
        watch.add_storage(tensor)
    with torch.no_grad(), watch.following(), watch:
        model(*inputs)
    return watch.layers()


@dataclass
class _Sums:
    macs: int = 0
    bytes_written: int = 0
    live_bytes: int = 0


class _Watch(TorchDispatchMode):
    """Sees every operation, whichever module is at work, and which memory lives."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.stack = [""]  # names of the modules at work, the innermost last
        self.sums: dict[str, _Sums] = {}
        self.alive: dict[int, int] = {}  # sizes of what lives, by address
        # Weights are no activations, nor are views of them.
        self.weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    @contextmanager
    def following(self) -> Iterator[None]:
        """Keeps the stack of modules that are at work."""
        with ExitStack() as hooks:
            for name, module in self.model.named_modules():
                enter = module.register_forward_pre_hook(lambda *_, name=name: self.stack.append(name))
                leave = module.register_forward_hook(self._leave)
                hooks.callback(enter.remove)
                hooks.callback(leave.remove)
            yield

    def _leave(self, *_: Any) -> None:
        self.stack.pop()

    def add_storage(self, tensor: Tensor) -> int:
        """Counts a tensor's memory as long as it lives; returns its size if it is new, else 0."""
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key in self.alive or key in self.weights or not storage.nbytes():
            return 0
        self.alive[key] = storage.nbytes()
        weakref.finalize(storage, self.alive.pop, key, None)
        return storage.nbytes()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation and counts it for the innermost module."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        sums = self.sums.setdefault(self.stack[-1], _Sums())
        packet = func._overloadpacket
        if packet in flop_registry:  # it counts two for each multiply-add
            sums.macs += flop_registry[packet](*args, **kwargs, out_val=result) // 2
        elif packet in VECTOR_PRODUCTS:
            sums.macs += args[VECTOR_PRODUCTS[packet]].numel()
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        sums.bytes_written += sum(map(self.add_storage, made))
        sums.live_bytes = max(sums.live_bytes, sum(self.alive.values()))
        return result

    def layers(self) -> list[Layer]:
        """Returns the modules in the order of their first work, then those whose weights others used."""
        modules = dict(self.model.named_modules())
        own = dict(_own_weights(modules))
        names = [*self.sums, *(name for name, count in own.items() if count and name not in self.sums)]
        rows = []
        for name in names:
            sums = self.sums.get(name, _Sums())
            rows.append(
                Layer(
                    name or "(root)",
                    type(modules[name]).__name__,
                    sums.macs,
                    own[name],
                    sums.bytes_written,
                    sums.live_bytes,
                )
            )
        return rows


def _own_weights(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, int]]:
    seen: set[int] = set()
    for name, module in modules.items():
        new = {id(weight): weight.numel() for weight in module.parameters(recurse=False)}
        yield name, sum(count for identity, count in new.items() if identity not in seen)
        seen.update(new)


def by_kind(layers: list[Layer]) -> list[Layer]:
    """Returns the layers of each kind as one, named after how many they are."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.kind, []).append(layer)
    return [merged(f"{len(group)} x", kind, group) for kind, group in groups.items()]


def merged(name: str, kind: str, layers: list[Layer]) -> Layer:
    """Returns several layers as one; what lives at most in any of them is what lives at most in all."""
    return Layer(
        name,
        kind,
        sum(layer.macs for layer in layers),
        sum(layer.parameters for layer in layers),
        sum(layer.bytes_written for layer in layers),
        max((layer.live_bytes for layer in layers), default=0),
    )
