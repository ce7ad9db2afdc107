"""What half precision would do to a graph: constants that it cannot hold, and values on real audio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from antispoof.errors import UserError
from antispoof.graph_cost import Graph, Node
from export.findings import Finding, Level
from export.targets import Target
from runtimes.activations import LARGEST_HALF, SMALLEST_NORMAL_HALF, activation_spans
from runtimes.clips import parity_clips

WIDE = ("float32", "float64")
MOSTLY = 0.5  # share of tiny values from which a tensor lives on too few digits


def half_findings(path: Path, graph: Graph, target: Target, audio: Path | None) -> list[Finding]:
    """Returns what would go wrong in half precision; without audio, what constants alone tell.

    Raises:
        UserError: There is no audio to be had, or the graph takes something else.
    """
    level: Level = "problem" if target.half == "always" else "note"
    constants = [] if target.half == "never" and audio is None else list(_constants(graph, level))
    return constants + ([] if audio is None else _activations(path, graph, level, audio))


def _constants(graph: Graph, level: Level) -> Iterator[Finding]:
    vanish, beyond, epsilons = [], [], []
    for name in dict.fromkeys(name for node in _all(graph.nodes) for name in node.inputs if name):
        value = graph.values[name]
        if value.constant is None or value.dtype not in WIDE:
            continue
        finite = np.abs(value.constant[np.isfinite(value.constant)])
        largest = float(finite.max(initial=0))
        if largest > LARGEST_HALF:
            beyond.append(name)
        elif value.constant.size == 1 and largest and not np.float16(largest):
            vanish.append(name)  # a guard against 0; what vanishes of many weights was as good as 0
    for node in _all(graph.nodes):
        epsilon = node.attributes.get("epsilon", 1.0)
        if "norm" in node.kind.lower() and isinstance(epsilon, float) and not np.float16(epsilon):
            epsilons.append(node.name)
    if beyond:
        todo = f"keep them within {LARGEST_HALF:g}: a mask of -30000 is as good as one of -1e9"
        yield Finding(level, "half", "constants that become infinite", todo, len(beyond), names=tuple(beyond))
    if vanish or epsilons:
        todo = "use at least 1e-7, or keep that operation in float32"
        names = tuple(vanish + epsilons)
        yield Finding(level, "half", "constants that become 0", todo, len(names), names=names)


def _all(nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from _all(node.body)


def _activations(path: Path, graph: Graph, level: Level, audio: Path) -> list[Finding]:
    shape = graph.values[graph.inputs[0]].shape if len(graph.inputs) == 1 else None
    if shape is None or len(shape) != 2 or shape[0] != 1 or graph.values[graph.inputs[0]].dtype not in WIDE:
        raise UserError(f"{path}: --audio needs a graph whose one input is a waveform (1, samples)")
    clips, called = parity_clips(audio, shape[1])
    spans = activation_spans(path, graph, clips)
    findings = []
    if over := [span for span in spans if span.overflows]:
        worst = max(max(-span.low, span.high) for span in over)
        todo = "scale what leads there down, or keep those operations in float32"
        what = f"values beyond {LARGEST_HALF:g} on {called}, up to {worst:.3g}"
        findings.append(Finding(level, "half", what, todo, len(over), names=tuple(s.name for s in over)))
    if small := [span for span in spans if span.tiny > MOSTLY]:
        what = f"values mostly below {SMALLEST_NORMAL_HALF:.1e} on {called}"
        todo = "scale what leads there up, or check the scores in half precision"
        findings.append(Finding("note", "half", what, todo, len(small), names=tuple(s.name for s in small)))
    if not findings:
        biggest = max((max(-span.low, span.high) for span in spans), default=0.0)
        what = f"{len(spans)} tensors stay within {biggest:.3g} on {called}"
        findings.append(Finding("note", "half", what, "nothing", len(spans)))
    return findings
