"""Writes the README's tables from the committed results, so that no figure is typed by hand.

    python benchmarks/report.py            # rewrite the tables
    python benchmarks/report.py --check    # exit 1 where README and results differ

A table stands between ``<!-- results: NAME -->`` and ``<!-- end -->`` and shows
``benchmarks/results/NAME.json``; the file's kind decides how.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from antispoof.errors import CheckFailed, UserError, run

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
TABLE = re.compile(r"<!-- results: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)

Row = dict[str, Any]


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table whose columns after the first are aligned to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _conditions(document: Row) -> str:
    """Returns the line that says where and with what a table was measured."""
    conditions = document["conditions"]
    cpu, packages = conditions["cpu"], conditions["packages"]
    shown = ("torch", "onnxruntime", "ai-edge-litert")
    versions = ", ".join(f"{name} {packages[name]}" for name in shown if packages.get(name))
    return f"{cpu['model']}, {cpu['cores']} virtual cores, {versions}, {conditions['date'][:10]}."


def latency(document: Row) -> str:
    """Renders the rows of ``benchmarks/latency.py``."""
    rows = []
    for row in document["rows"]:
        if "cpu_ms" not in row:
            rows.append([row["label"], "", "", "", "", row.get("error", "did not run")])
            continue
        ratio = row["ratio"][row["judged_by"]]["estimate"] if "ratio" in row else 1.0
        rows.append(
            [
                row["label"],
                f"{row['bytes'] / 1024:.0f} KiB",
                f"{row['cpu_ms']['p50']:.0f} ms",
                f"{ratio:.2f}",
                f"{row['memory_mib']['peak']:.0f} MiB",
                row.get("verdict", "base"),
            ]
        )
    header = ["file", "size", "processor time per clip, median", "ratio", "peak memory", "verdict"]
    return _table(header, rows) + f"\n\nOne thread, interleaved. {_conditions(document)}"


def scan_limit(document: Row) -> str:
    """Renders ``benchmarks/scan_limit.py``: each form's multiple of the C kernel's time, by shape."""
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in document["rows"]))
    names = list(dict.fromkeys(row["candidate"] for row in document["rows"]))
    ratios = {(row["candidate"], tuple(row["shape"])): row["ratio"] for row in document["rows"]}
    rows = [
        [name, *(f"{ratios[name, shape]:.1f}" if (name, shape) in ratios else "" for shape in shapes)]
        for name in names
    ]
    header = ["form", *(", ".join(map(str, shape)) for shape in shapes)]
    about = "Batch, length, channels; 16 states, one thread."
    return _table(header, rows) + f"\n\n{about} {_conditions(document)}"


def bimamba_block(document: Row) -> str:
    """Renders ``benchmarks/bimamba_block.py``."""
    rows = [
        [
            row["variant"],
            f"{row['p50_ms']:.2f} ms",
            f"{row['times_as_fast']:.2f}",
            f"{row['bytes'] / 1024:.0f} KiB",
        ]
        for row in document["rows"]
    ]
    header = ["Bi-Mamba block", "median", "times as fast", "size"]
    return _table(header, rows) + f"\n\nOne thread. {_conditions(document)}"


def export_cost(document: Row) -> str:
    """Renders ``benchmarks/export_cost.py``."""
    rows = [
        [
            f"{row['model']}, WavLM {row['config'].get('wavlm', 'none')}",
            f"{row['bytes'] / 2**20:.0f} MiB",
            str(row["nodes"]),
            f"{row['cpu_s']:.0f} s",
            f"{row['peak_mib'] / 1024:.1f} GiB",
            f"{row['max_difference']:.0e}",
        ]
        for row in document["rows"]
    ]
    header = ["model", "size", "nodes", "processor time", "peak memory", "largest difference"]
    return _table(header, rows) + f"\n\n{_conditions(document)}"


RENDERERS: dict[str, Callable[[Row], str]] = {
    "latency": latency,
    "scan-limit": scan_limit,
    "bimamba-block": bimamba_block,
    "export-cost": export_cost,
}


def read_results(name: str) -> Row:
    """Returns a results file by its name.

    Raises:
        UserError: There is none, or nothing here renders its kind.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise UserError(f"README.md shows results that do not exist: {path.relative_to(REPOSITORY)}")
    document = json.loads(path.read_text(encoding="utf-8"))
    if document["kind"] not in RENDERERS:
        raise UserError(f"{path.name}: no table is known for results of kind {document['kind']!r}")
    return document


def render(text: str) -> str:
    """Returns ``text`` with every table between its marks made anew from the results."""

    def table(match: re.Match[str]) -> str:
        document = read_results(match["name"])
        return f"<!-- results: {match['name']} -->\n{RENDERERS[document['kind']](document)}\n<!-- end -->"

    return TABLE.sub(table, text)


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a table is old")
    args = parser.parse_args(argv)
    readme = REPOSITORY / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = render(before)
    if args.check and before != after:
        raise CheckFailed("README.md's tables are not those of the results; run python benchmarks/report.py")
    if before != after:
        partial = readme.with_name(".README.md.partial")
        partial.write_text(after, encoding="utf-8")
        partial.replace(readme)
    return 0


if __name__ == "__main__":
    run(main)
