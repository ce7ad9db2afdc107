"""What each target takes: tables of operations and limits, and why a node is refused.

A table is a file in ``export/support`` with, for each format that the target runs, the operations it takes,
its limits, and where that was read and when:

    about = "..."           what the target is
    half = "never"          whether it computes in float16: never, allowed (an app may ask for it), always
    fixed = true            whether it needs every shape before the first run

    [onnx]                  or tflite, or coreml
    sources = ["..."]       and read = the day
    operations = ["..."]
    types = ["float32"]     optional: types that it computes in
    rank = 4                optional: most axes of a tensor
    axis = 16384            optional: longest axis of a tensor

    [onnx.only]             optional: what else holds for one operation: ranks of its first input,
    Conv = {ranks = [4]}    constant (inputs that must be), inputs (at most), kernel, axis, attributes
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np

from antispoof.errors import UserError
from antispoof.graph_cost import Graph, Node, Value

SUPPORT = Path(__file__).resolve().parent / "support"
REWRITES = "rewrites"
DEFAULT_TARGETS = {"onnx": "onnxruntime-cpu", "tflite": "xnnpack", "coreml": "coreml"}
CUT = "cut the axis into tiles, or fold it into two"
FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Target:
    """What one target takes of one format.

    Attributes:
        name: What commands call it.
        about: What it is, in words.
        half: Whether it computes in float16: never, allowed (an app may ask for it), always.
        fixed: Whether it needs every shape before the first run.
        sources: Where the rest was read.
        read: On which day.
        operations: Kinds that it takes.
        types: Types that it computes in; empty for any.
        rank: Most axes of a tensor, if there is a limit.
        axis: Longest axis of a tensor, if there is a limit.
        only: What else holds for single kinds.
    """

    name: str
    about: str
    half: Literal["never", "allowed", "always"]
    fixed: bool
    sources: tuple[str, ...]
    read: date
    operations: frozenset[str]
    types: tuple[str, ...]
    rank: int | None
    axis: int | None
    only: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Refusal:
    """Why a target does not take a node.

    Attributes:
        check: operation, rule, type, rank or axis.
        what: What is in the way; the same words for nodes that the same thing would help.
        todo: What helps.
        size: The rank or the axis that is too large.
    """

    check: str
    what: str
    todo: str
    size: int = 0


def target_names() -> list[str]:
    """Returns the names of all targets, sorted."""
    return sorted(path.stem for path in SUPPORT.glob("*.toml") if path.stem != REWRITES)


def load_target(name: str, format: str) -> Target:
    """Returns what a target takes of a format.

    Raises:
        UserError: It takes no files of that format.
    """
    table = _table(name)
    if format not in table:
        able = [other for other in target_names() if format in _table(other)]
        raise UserError(f"{name} takes no {format} files; for this one choose {', '.join(able)}")
    own = table[format]
    return Target(
        name=name,
        about=table["about"],
        half=table["half"],
        fixed=table["fixed"],
        sources=tuple(own["sources"]),
        read=own["read"],
        operations=frozenset(own["operations"]),
        types=tuple(own.get("types", ())),
        rank=own.get("rank"),
        axis=own.get("axis"),
        only=own.get("only", {}),
    )


@functools.cache
def _table(name: str) -> dict[str, Any]:
    return tomllib.loads((SUPPORT / f"{name}.toml").read_text(encoding="utf-8"))


@functools.cache
def _rewrites() -> dict[str, str]:
    return {kind: row["advice"] for row in _table(REWRITES)["rewrite"] for kind in row["kinds"]}


def advice(kind: str) -> str:
    """Returns what to do about an operation that is not taken."""
    return _rewrites().get(kind, "replace it, or choose a target that takes it")


def refusals(node: Node, graph: Graph, target: Target) -> list[Refusal]:
    """Returns why a target does not take a node; nothing if it does."""
    beyond = list(_beyond_limits(node, graph, target))
    if node.kind not in target.operations:
        # What replaces it will compute in other types; 64-bit places are told all the same.
        found = [Refusal("operation", f"no {node.kind}", advice(node.kind))]
        beyond = [row for row in beyond if row.check != "type" or row.what.endswith("int64")]
    else:
        found = list(_broken_rules(node, graph, target.only.get(node.kind, {})))
        # A loop is taken with all that is in it.
        inside = [row for inner in node.body for row in refusals(inner, graph, target)]
        found += list(dict.fromkeys(inside))
    return found + beyond


def _broken_rules(node: Node, graph: Graph, rules: Mapping[str, Any]) -> Iterator[Refusal]:
    """Yields what one kind of operation must be and this one is not."""
    taken = [graph.values[name] if name else None for name in node.inputs]
    shape = taken[0].shape if taken and taken[0] else None
    computed = [i for i, name in enumerate(node.inputs) if name and name not in graph.fixed]
    if "ranks" in rules and shape is not None and len(shape) not in rules["ranks"]:
        allowed = " or ".join(map(str, rules["ranks"]))
        yield Refusal("rule", f"{node.kind} of rank {len(shape)}", f"give it rank {allowed} by Reshape")
    if set(computed) & set(rules.get("constant", ())):
        yield Refusal("rule", f"{node.kind} with computed parameters", "make its parameters constants")
    if len(taken) > rules.get("inputs", len(taken)):
        yield Refusal(
            "rule", f"{node.kind} of {len(taken)} inputs", f"do it in steps of {rules['inputs']} at most"
        )
    if "kernel" in rules and max(_kernel(node, taken), default=0) > rules["kernel"]:
        yield Refusal(
            "rule",
            f"{node.kind} with a window over {rules['kernel']}",
            "fold the axis into channels so that the window gets shorter",
        )
    given = [graph.values[name] for name in node.outputs if name]
    sizes = [size for value in (*taken, *given) if value for size in value.shape or ()]
    if (longest := max(sizes, default=0)) > rules.get("axis", longest):
        yield Refusal("axis", f"{node.kind} over {rules['axis']}", CUT, longest)
    for name, allowed in rules.get("attributes", {}).items():
        value = node.attributes.get(name)
        if value is not None and value not in allowed:
            yield Refusal("rule", f"{node.kind} with {name} {value}", f"only {name} {allowed[0]} is taken")


def _beyond_limits(node: Node, graph: Graph, target: Target) -> Iterator[Refusal]:
    """Yields which limits of the target a node's tensors exceed."""
    names = [name for name in (*node.inputs, *node.outputs) if name and name not in graph.fixed]
    computed = [graph.values[name] for name in names]
    wrong = {value.dtype for value in computed} - {*target.types, "unknown"} if target.types else set()
    for dtype in sorted(wrong):
        yield Refusal("type", f"computes in {dtype}", _other_type(dtype, target))
    ranks = [len(value.shape) for value in computed if value.shape]
    if target.rank is not None and (rank := max(ranks, default=0)) > target.rank:
        yield Refusal("rank", f"rank over {target.rank}", f"reshape to at most {target.rank} axes", rank)
    axes = [size for value in computed for size in value.shape or ()]
    if target.axis is not None and (axis := max(axes, default=0)) > target.axis:
        yield Refusal("axis", f"axis over {target.axis:,}", CUT, axis)


def _other_type(dtype: str, target: Target) -> str:
    """Returns what to do about a type that a target does not compute in."""
    if dtype in FLOATS and "float16" in target.types:
        return "export in half precision (to_coreml.py --precision float16, or --compute-units neural-engine)"
    if dtype in FLOATS:
        return f"compute in {target.types[0]}"
    return f"keep numbers of places and masks out of the graph, or compute them in {target.types[0]}"


def _kernel(node: Node, taken: list[Value | None]) -> list[int]:
    """Returns the sizes of the window that an operation slides; nothing for others."""
    for name in ("kernel_shape", "kernel_sizes"):
        if name in node.attributes:
            return np.ravel(node.attributes[name]).tolist()
    if "filterHeight" in node.attributes:
        return [node.attributes["filterHeight"], node.attributes["filterWidth"]]
    weight = taken[1] if len(taken) > 1 else None
    if node.kind in ("conv", "conv_transpose", "Conv", "ConvTranspose") and weight and weight.shape:
        return list(weight.shape[2:])
    return []
