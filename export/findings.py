"""What lint has to say about a graph, one finding for each thing to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from antispoof.errors import UserError
from antispoof.graph_cost import RANDOM_KINDS, Graph, total_cost
from antispoof.manifest import Manifest, check_file, manifest_path
from antispoof.manifest_reader import read_manifest
from export.placement import Placement
from export.targets import Refusal, Target

Level = Literal["problem", "note"]
FITTED_LATER = ("thresholds", "calibration")  # which a file may have got after it was written


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the target wants it.

    Attributes:
        level: A problem must be mended before the file is what the target wants; a note is to be known.
        check: What looked for it.
        what: What is there.
        todo: What to do about it.
        count: How many operations or tensors it concerns.
        share: Share of the graph's multiply-adds that it leaves out, if it does.
        names: The operations or tensors.
    """

    level: Level
    check: str
    what: str
    todo: str
    count: int = 0
    share: float | None = None
    names: tuple[str, ...] = ()


def placement_findings(graph: Graph, placement: Placement) -> list[Finding]:
    """Returns why operations are left out, what the same thing would help together, largest share first."""
    groups: dict[tuple[str, str, str], list[tuple[int, Refusal]]] = {}
    for index, reasons in placement.refused.items():
        if index not in placement.ends:
            for reason in reasons:
                groups.setdefault((reason.check, reason.what, reason.todo), []).append((index, reason))
    found = []
    for (check, what, todo), rows in groups.items():
        nodes = [graph.nodes[index] for index, _ in rows]
        macs = total_cost(nodes, graph.values).macs
        largest = max(reason.size for _, reason in rows)
        found.append(
            Finding(
                "problem",
                check,
                f"{what}, up to {largest:,}" if largest else what,
                todo,
                len(rows),
                macs / placement.whole.macs if placement.whole.macs else 0.0,
                tuple(node.name for node in nodes),
            )
        )
    found.sort(key=lambda row: (-(row.share or 0), -row.count))
    return found + _ends(graph, placement)


def _ends(graph: Graph, placement: Placement) -> list[Finding]:
    if not placement.ends:
        return []
    nodes = [graph.nodes[index] for index in sorted(placement.ends)]
    kinds = ", ".join(dict.fromkeys(node.kind for node in nodes))
    what = f"{kinds} at the ends of the graph, which compute nothing"
    names = tuple(node.name for node in nodes)
    return [Finding("note", "ends", what, "leave them on the CPU", len(nodes), names=names)]


def shape_findings(graph: Graph, placement: Placement, target: Target) -> list[Finding]:
    """Returns which shapes are missing or decided by a run."""
    found = []
    if graph.dynamic:
        what = f"shape decided at run time: {', '.join(graph.dynamic)}"
        todo = "export without --dynamic-batch" if target.fixed else "counted here with 1 in its place"
        level: Level = "problem" if target.fixed else "note"
        found.append(Finding(level, "shape", what, todo, len(graph.dynamic)))
    if unknown := placement.whole.unknown:
        todo = "fix all shapes and lint again: shares and limits leave these out"
        found.append(Finding("problem", "shape", "operations of unknown shape", todo, unknown))
    return found


def random_findings(graph: Graph) -> list[Finding]:
    """Returns which operations give something else at every run, or belong to training."""
    nodes = [node for outer in graph.nodes for node in (outer, *outer.body) if node.kind in RANDOM_KINDS]
    if not nodes:
        return []
    kinds = ", ".join(sorted({node.kind for node in nodes}))
    todo = "export in eval mode: a score must not depend on chance"
    names = tuple(node.name for node in nodes)
    return [Finding("problem", "random", f"{kinds} left in the graph", todo, len(nodes), names=names)]


def contract_findings(path: Path, graph: Graph) -> list[Finding]:
    """Returns what the manifest contract asks for and the file has not."""
    found = []
    if graph.outside:
        what = f"weights outside of the file: {', '.join(graph.outside)}"
        found.append(_broken(what, "put them into it: no sha256 covers them, and copies lose them"))
    try:
        manifest = read_manifest(path)
        check_file(manifest, path)
    except UserError as error:
        what = str(error).removeprefix(f"{path}: ").removesuffix("; export the model again")
        return [*found, _broken(what, "write it by an exporter or quantizer of this project")]
    if manifest.format != graph.format:
        found.append(_broken(f"the manifest of a {manifest.format} file", "export it again"))
    if problem := _other_facts(graph, manifest):
        found.append(_broken(problem, "export it again"))
    if graph.inputs != (manifest.input.name,) or graph.outputs != (manifest.output.name,):
        named = [tuple(name.partition("#")[0] for name in side) for side in (graph.inputs, graph.outputs)]
        if named != [(manifest.input.name,), (manifest.output.name,)]:
            what = f"takes {named[0]} and gives {named[1]}, its manifest says otherwise"
            found.append(_broken(what, "export it again"))
    missing = [key for key in ("parity", *FITTED_LATER) if not getattr(manifest, key)]
    if missing:
        what = f"no {' and no '.join(missing)} in {manifest_path(path).name}"
        todo = "fit them on labelled speech before scores are taken for decisions"
        found.append(Finding("note", "metadata", what, todo))
    return found


def _broken(what: str, todo: str) -> Finding:
    return Finding("problem", "metadata", what, todo)


def _other_facts(graph: Graph, manifest: Manifest) -> str:
    """Returns how what the file says of itself differs from its manifest, nothing if it does not."""
    if graph.facts is None:
        return "the file itself does not say what it is"
    try:
        inside: Any = json.loads(graph.facts)
    except ValueError:
        return "what the file says of itself is no JSON"
    beside: Any = json.loads(manifest.facts())
    keys = [key for key in beside if key not in FITTED_LATER]
    wrong = [key for key in keys if not isinstance(inside, dict) or inside.get(key) != beside[key]]
    return f"the file itself says otherwise of {', '.join(wrong)}" if wrong else ""
