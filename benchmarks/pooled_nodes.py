"""Counts the clips in which two ONNX files keep other graph nodes, or keep them in another order.

AASIST's pooling keeps the nodes of highest score and pairs them by rank. Where rounding changes a rank, the
score jumps; so this says where differences come from. The ranks are values inside the graph: they are made
outputs of a copy in memory, the file itself is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError
from benchmarks.trial_scores import Clips
from runtimes.ort import open_session

Nodes = list[list[int]]  # of a clip: for each pooling the nodes that it keeps


@dataclass(frozen=True)
class PooledNodes:
    """Share of clips in which any pooling keeps another set of nodes, or keeps them in another order."""

    clips: int
    poolings: int
    other_set: float
    other_order: float


def compare_pooled_nodes(reference: Path, candidate: Path, clips: Clips) -> PooledNodes:
    """Returns how often the nodes that two ONNX files keep differ.

    Raises:
        UserError: A file is not ONNX, has no ranks, or not as many as the other.
    """
    readers = [NodeReader(path) for path in (reference, candidate)]
    if not readers[0].kept:
        raise UserError(f"{reference}: its graph has no pooling by rank; leave out --pooled-nodes")
    if readers[0].kept != readers[1].kept:
        raise UserError(
            f"{candidate} pools {readers[1].kept} nodes where {reference} pools {readers[0].kept}"
        )
    one, two = ([reader.read(clips, i)[1] for i in range(len(clips.trials))] for reader in readers)
    return compare_nodes(one, two)


def compare_nodes(one: Sequence[Nodes], two: Sequence[Nodes]) -> PooledNodes:
    """Returns how often two models keep other nodes, given those of each clip and pooling."""
    sets = sum(
        any(set(a) != set(b) for a, b in zip(*pair, strict=True)) for pair in zip(one, two, strict=True)
    )
    orders = sum(list(a) != list(b) for a, b in zip(one, two, strict=True))
    return PooledNodes(len(one), len(one[0]), sets / len(one), orders / len(one))


class NodeReader:
    """An ONNX file that says, beside a score, which nodes it keeps; none where it does not pool by rank."""

    def __init__(self, path: Path) -> None:
        import onnx

        if path.suffix.lower() != ".onnx":
            raise UserError(f"{path}: the kept nodes can only be read from ONNX files")
        model = onnx.load(path)
        found = dict(_ranks(model.graph))
        self.names, self.kept = list(found), list(found.values())
        self.score, self.input = model.graph.output[0].name, model.graph.input[0]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.names)
        self.session = open_session(model.SerializeToString(), threads=1)

    def read(self, clips: Clips, index: int) -> tuple[float, Nodes]:
        """Returns a clip's score and the kept nodes of each pooling, the highest ranked first."""
        samples = self.input.type.tensor_type.shape.dim[1].dim_value
        feed = {self.input.name: clips.waveform(index, samples)}
        score, *ranks = self.session.run([self.score, *self.names], feed)
        nodes = [
            np.argsort(rank.ravel())[:kept].tolist() for rank, kept in zip(ranks, self.kept, strict=True)
        ]
        return float(score[0]), nodes


def _ranks(graph: Any) -> list[tuple[str, int]]:
    """Returns the value that holds the ranks, and how many nodes are kept, for each pooling.

    A pooling compares ranks, which are a sum over comparisons, with the constants 0, 1, ... kept - 1.
    """
    sizes = {constant.name: constant.dims[0] for constant in graph.initializer if constant.dims}
    # In a file of -f64 they are widened first.
    sizes |= {
        node.output[0]: sizes[node.input[0]]
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in sizes
    }
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    return [
        (a, sizes[b])
        for node in graph.node
        if node.op_type == "Equal"
        for a, b in (tuple(node.input), tuple(reversed(node.input)))
        if made_by.get(a) == "ReduceSum" and b in sizes
    ]
