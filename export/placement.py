"""Where the nodes of a graph would run: what a target takes, in how many pieces, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass

from antispoof.graph_cost import Cost, Graph, Node, total_cost
from export.targets import Refusal, Target, refusals

# What moves numbers without computing any: at the ends of a graph it costs no more outside of a target.
# fmt: off
MOVING_KINDS = frozenset((
    "Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
    "CAST", "CONCATENATION", "EXPAND_DIMS", "GATHER", "PACK", "PAD", "RESHAPE", "SLICE", "SPLIT", "SQUEEZE",
    "STRIDED_SLICE", "TRANSPOSE",
    "cast", "concat", "expand_dims", "gather", "identity", "pad", "reshape", "slice_by_index",
    "slice_by_size", "sliding_windows", "split", "squeeze", "stack", "transpose",
))
# fmt: on


@dataclass(frozen=True)
class Placement:
    """How a target takes a graph.

    Attributes:
        refused: Why each node that is left out is, by its place in the graph.
        ends: Places of refused nodes that only lay out the input before anything is computed, or the
            output after everything is.
        partitions: Into how many pieces the target gets its part of the graph.
        whole: The cost of the graph.
        left_out: The cost of what the target does not take, the ends included.
    """

    refused: dict[int, list[Refusal]]
    ends: frozenset[int]
    partitions: int
    whole: Cost
    left_out: Cost

    @property
    def fallback(self) -> float:
        """Share of the multiply-adds that the target does not take; of elements, where there are none."""
        return self.left_out.macs / self.whole.macs if self.whole.macs else self.elements

    @property
    def elements(self) -> float:
        """Share of the computed elements that the target does not take."""
        return self.left_out.elements / self.whole.elements if self.whole.elements else 0.0


def place(graph: Graph, target: Target) -> Placement:
    """Returns how a target takes a graph."""
    found = {index: refusals(node, graph, target) for index, node in enumerate(graph.nodes)}
    refused = {index: reasons for index, reasons in found.items() if reasons}
    return Placement(
        refused,
        _ends(graph, set(refused)),
        partitions(graph.nodes, set(refused)),
        total_cost(graph.nodes, graph.values),
        total_cost([graph.nodes[index] for index in refused], graph.values),
    )


def partitions(nodes: tuple[Node, ...], refused: set[int]) -> int:
    """Returns into how few pieces what is taken can be cut so that each runs at one go.

    A piece holds all that is ready without leaving the target once more, which is how the delegates of
    LiteRT and the execution providers of ONNX Runtime divide a graph.
    """
    piece: dict[str, int] = {}  # the piece after which a value is there
    inside: dict[str, bool] = {}
    last = 0
    for index, node in enumerate(nodes):
        taken = index not in refused
        before = [piece[name] + (taken and not inside[name]) for name in node.inputs if name in piece]
        own = max(before, default=0)
        own = max(own, 1) if taken else own
        piece.update(dict.fromkeys(node.outputs, own))
        inside.update(dict.fromkeys(node.outputs, taken))
        last = max(last, own)
    return last


def _ends(graph: Graph, refused: set[int]) -> frozenset[int]:
    """Returns which refused nodes move the graph's input before, or its output after, all that computes."""
    found: set[int] = set()
    raw = set(graph.inputs) | graph.fixed
    for index, node in enumerate(graph.nodes):
        if index in refused and node.kind in MOVING_KINDS and raw.issuperset(node.inputs):
            found.add(index)
            raw.update(node.outputs)
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        for name in node.inputs:
            readers.setdefault(name, []).append(index)
    done: set[int] = set()
    for index in sorted(refused, reverse=True):
        node = graph.nodes[index]
        if node.kind in MOVING_KINDS and all(set(readers.get(name, ())) <= done for name in node.outputs):
            done.add(index)
    return frozenset(found | done)
