"""What the tables of all kinds of results are put together from."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def three_digits(value: float) -> str:
    """Returns a number as shortly as its size allows: 117, 1.48, 0.66, 0.013."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table whose columns after the first are aligned to the right.

    A bar in a cell, as file names, messages and devices' names may have one, becomes a slash.
    """
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in lines)


def measured_on(document: Row) -> str:
    """Returns the line that says where and with what a table was measured, and what of it elsewhere."""
    here = _surroundings(document["conditions"])
    places: dict[str, list[str]] = {}  # by detector, each place once
    for row in document["rows"]:
        for name, found in row.get("detectors", {}).items():
            place = _surroundings(found["measured"]) if "measured" in found else here
            if place not in places.setdefault(name, []):
                places[name].append(place)
    names: dict[str, list[str]] = {}  # by what is said of their place
    for name, found in places.items():
        for place in found:
            if place != here:
                said = f"{place} (in part)" if len(found) > 1 else place
                names.setdefault(said, []).append(name)
    return ". ".join([here, *(f"{', '.join(alike)}: {said}" for said, alike in names.items())]) + "."


def _surroundings(conditions: Row) -> str:
    cpu, packages = conditions["cpu"], conditions["packages"]
    shown = ("torch", "onnxruntime", "ai-edge-litert", "openvino", "nncf", "executorch", "mnn")
    versions = ", ".join(f"{name} {packages[name]}" for name in shown if packages.get(name))
    cores = f"{cpu['cores']} {'virtual ' if cpu['virtual'] else ''}cores"
    return f"{cpu['model']}, {cores}, {versions}, {conditions['date'][:10]}"


def points(change: Row, digits: int = 1) -> str:
    """Returns a change of a rate with its interval, in percentage points."""
    estimate, low, high = (f"{100 * change[name]:+.{digits}f}" for name in ("estimate", "low", "high"))
    return f"{estimate} ({low} to {high})"
