"""Says what a target will not take of a model file, before anything is shipped.

    python export/lint.py out/fscnn.onnx --target nnapi
    python export/lint.py out/fscnn.mlpackage --target ane --audio clips/
    python export/lint.py out/fscnn.tflite --max-fallback 0 --max-partitions 1

Targets are onnxruntime-cpu, nnapi, qnn, webgpu, coreml, ane and xnnpack for ONNX files, xnnpack and gpu for
TFLite files, coreml and ane for Core ML packages. What they take stands in export/support, with where it
was read and when. A problem is something to mend, a note something to know; "clean" means no problems.
Exit code 1 where a budget is exceeded; without one, lint only tells.

Without --audio, half precision is judged by constants alone; with it, also by the values of every tensor on
up to 8 of those clips. Which processor runs what in the end, only the device tells.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from antispoof.errors import EXIT_DONE, CheckFailed, UserError, run
from antispoof.graph_cost import Graph
from export.findings import (
    Finding,
    Level,
    contract_findings,
    placement_findings,
    random_findings,
    shape_findings,
)
from export.half_range import half_findings
from export.placement import Placement, place
from export.targets import DEFAULT_TARGETS, Target, load_target, target_names
from runtimes.graphs import read_graph
from runtimes.litert import partitions

MOST_NAMES = 3  # of a finding's operations, in the table
LONGEST_NAME = 40


@dataclass(frozen=True)
class Report:
    """What lint found.

    Attributes:
        graph: The graph.
        target: What it is to run on.
        placement: What the target takes of it.
        partitions: In how many pieces.
        findings: What is to be done and known.
    """

    graph: Graph
    target: Target
    placement: Placement
    partitions: int
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> int:
        """How many findings are problems."""
        return sum(finding.level == "problem" for finding in self.findings)


def lint(path: Path, target: str | None = None, audio: Path | None = None) -> Report:
    """Returns what a target, by default the CPU's runtime, will not take of a file.

    Raises:
        UserError: The file is damaged, the target does not run such files, or there is no such audio.
    """
    graph = read_graph(path)
    wanted = load_target(target or DEFAULT_TARGETS[graph.format], graph.format)
    placement = place(graph, wanted)
    pieces, differing = _pieces(path, graph, wanted, placement)
    findings = [
        *placement_findings(graph, placement),
        *differing,
        *shape_findings(graph, placement, wanted),
        *random_findings(graph),
        *half_findings(path, graph, wanted, audio),
        *contract_findings(path, graph),
    ]
    return Report(graph, wanted, placement, pieces, tuple(findings))


def _pieces(path: Path, graph: Graph, target: Target, placement: Placement) -> tuple[int, list[Finding]]:
    """Returns into how many pieces a target cuts the graph: as it does, where it can be asked here."""
    if (target.name, graph.format) != ("xnnpack", "tflite"):
        return placement.partitions, []
    actual = partitions(path)
    if actual.outside == len(placement.refused) and actual.pieces == placement.partitions:
        return actual.pieces, []
    level: Level = "problem" if actual.outside > len(placement.refused) else "note"
    what = f"{actual.sentence()} in this machine's XNNPACK; by the table {len(placement.refused)} outside"
    todo = "see which by LiteRT's benchmark_model --enable_op_profiling=true"
    return actual.pieces, [Finding(level, "partitions", what, todo)]


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = argparse.ArgumentParser(
        prog="lint.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=".onnx, .tflite or .mlpackage")
    parser.add_argument(
        "--target", choices=target_names(), help="what it is to run on (default: its runtime on a CPU)"
    )
    parser.add_argument("--audio", type=Path, metavar="DIR", help="clips to look for values on")
    parser.add_argument(
        "--max-fallback",
        type=float,
        metavar="PERCENT",
        help="exit 1 if more of the multiply-adds than this is left out",
    )
    parser.add_argument(
        "--max-partitions", type=int, metavar="N", help="exit 1 if the target gets more pieces than this"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with all names")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    args = build_parser().parse_args(argv)
    if args.max_fallback is not None and not 0 <= args.max_fallback <= 100:
        raise UserError(f"--max-fallback takes 0 to 100 percent, not {args.max_fallback:g}")
    if args.max_partitions is not None and args.max_partitions < 0:
        raise UserError(f"--max-partitions takes 0 or more, not {args.max_partitions}")
    report = lint(args.file, args.target, args.audio)
    print(as_json(report, args.file) if args.json else as_table(report, args.file))
    if over := list(_over(report, args.max_fallback, args.max_partitions)):
        raise CheckFailed(f"{args.file.name} on {report.target.name}: {' and '.join(over)}")
    return EXIT_DONE


def _over(report: Report, fallback: float | None, pieces: int | None) -> Iterator[str]:
    """Yields which budgets are exceeded."""
    left_out = 100 * report.placement.fallback
    if fallback is not None and left_out > fallback:
        yield f"{left_out:.2f} % of the multiply-adds are left out, allowed are {fallback:g} %"
    if pieces is not None and report.partitions > pieces:
        yield f"{report.partitions} partitions, allowed are {pieces}"


def as_json(report: Report, path: Path) -> str:
    """Returns the report for other programs."""
    placement = report.placement
    facts: dict[str, Any] = {
        "file": str(path),
        "format": report.graph.format,
        "target": report.target.name,
        "sources": report.target.sources,
        "read": report.target.read.isoformat(),
        "operations": len(report.graph.nodes),
        "operations_left_out": len(placement.refused),
        "macs": placement.whole.macs,
        "fallback_percent": 100 * placement.fallback,
        "elements_left_out_percent": 100 * placement.elements,
        "partitions": report.partitions,
        "clean": not report.problems,
        "findings": [asdict(finding) for finding in report.findings],
    }
    return json.dumps(facts, indent=2)


def as_table(report: Report, path: Path) -> str:
    """Returns the report for people: what is taken, then a line for each finding."""
    placement, target = report.placement, report.target
    total, left = len(report.graph.nodes), len(placement.refused)
    notes = len(report.findings) - report.problems
    counted = f"{report.problems} problem{'s' * (report.problems != 1)}, {notes} note{'s' * (notes != 1)}"
    facts = {
        "file": f"{path}, {total} operations, {placement.whole.macs / 1e6:,.1f} M multiply-adds",
        "target": f"{target.name}, {target.about}; table of {target.read}",
        "left out": f"{left} operations, {100 * placement.fallback:.1f} % of the multiply-adds, "
        f"{100 * placement.elements:.1f} % of what is computed",
        "partitions": str(report.partitions),
        "verdict": counted if report.problems else f"clean, {notes} note{'s' * (notes != 1)}",
    }
    lines = [f"{name:<10}  {value}" for name, value in facts.items()]
    return "\n".join([*lines, *([""] if report.findings else []), *map(_line, report.findings)])


def _line(finding: Finding) -> str:
    """Returns a finding on one line."""
    parts = [f"{finding.count}x"] if finding.count else []
    parts += [f"{100 * finding.share:.1f} %"] if finding.share else []
    names = [name.partition("#")[0][-LONGEST_NAME:] for name in finding.names[:MOST_NAMES]]
    if names:
        parts.append(", ".join(names) + (", ..." if len(finding.names) > MOST_NAMES else ""))
    where = f" ({'; '.join(parts)})" if parts else ""
    return f"{finding.level:<8} {finding.check:<10} {finding.what}{where}: {finding.todo}"


if __name__ == "__main__":
    run(main)
