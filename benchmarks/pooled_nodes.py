"""Counts the clips in which two ONNX files keep other graph nodes, or keep them in another order.

AASIST's pooling keeps the nodes of highest score and pairs them by rank. Where rounding changes a rank, the
score jumps; so this says where differences come from. The ranks are values inside the graph: they are made
outputs of a copy in memory, the file itself is not touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError
from benchmarks.trial_scores import Clips
from runtimes.ort import open_session


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
    one, two = _Ranks(reference), _Ranks(candidate)
    if one.kept != two.kept:
        raise UserError(f"{candidate} pools {two.kept} nodes where {reference} pools {one.kept}")
    sets = orders = 0
    for index in range(len(clips.trials)):
        pairs = list(zip(one.nodes(clips, index), two.nodes(clips, index), strict=True))
        sets += any(set(a) != set(b) for a, b in pairs)
        orders += any(a != b for a, b in pairs)
    return PooledNodes(len(clips.trials), len(one.kept), sets / len(clips.trials), orders / len(clips.trials))


class _Ranks:
    """An ONNX file that returns, instead of a score, which nodes it keeps."""

    def __init__(self, path: Path) -> None:
        import onnx

        if path.suffix.lower() != ".onnx":
            raise UserError(f"{path}: the kept nodes can only be read from ONNX files")
        model = onnx.load(path)
        found = dict(_ranks(model.graph))
        if not found:
            raise UserError(f"{path}: its graph has no pooling by rank; leave out --pooled-nodes")
        self.names, self.kept = list(found), list(found.values())
        self.input = model.graph.input[0]
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.names)
        self.session = open_session(model.SerializeToString(), threads=1)

    def nodes(self, clips: Clips, index: int) -> list[tuple[int, ...]]:
        """Returns the kept nodes of each pooling, the highest score first."""
        samples = self.input.type.tensor_type.shape.dim[1].dim_value
        ranks = self.session.run(self.names, {self.input.name: clips.waveform(index, samples)})
        return [
            tuple(np.argsort(rank.ravel())[:kept].tolist())
            for rank, kept in zip(ranks, self.kept, strict=True)
        ]


def _ranks(graph: Any) -> list[tuple[str, int]]:
    """Returns the value that holds the ranks, and how many nodes are kept, for each pooling.

    A pooling compares ranks, which are a sum over comparisons, with the constants 0, 1, ... kept - 1.
    """
    sizes = {constant.name: constant.dims[0] for constant in graph.initializer if constant.dims}
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    return [
        (a, sizes[b])
        for node in graph.node
        if node.op_type == "Equal"
        for a, b in (tuple(node.input), tuple(reversed(node.input)))
        if made_by.get(a) == "ReduceSum" and b in sizes
    ]
