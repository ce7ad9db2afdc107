"""Draws results files: latency, size against speed and errors, robustness, cost by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Any

from benchmarks.pages.charts import Bar, Plot, Ridge, bar_chart, linear_axis, log_axis, ridge_chart

Row = dict[str, Any]

SHOWN_LAYERS = 12
LEAST_HEAT = 0.05  # a change of the EER below this is never drawn as the worst there can be
WIDE_RANGE = 8  # sizes further apart than this are drawn on a logarithmic axis
WIDEST = 0.5  # times further from their median than this share of it are drawn at the edge
STRONGEST = 0.6  # opacity of the hottest cell; beyond, text on it is hard to read


@dataclass(frozen=True)
class Point:
    """What a choice between model files rests on; ``eer`` is a fraction, None where it was not measured."""

    name: str
    milliseconds: float
    kib: float
    eer: float | None


def ran(document: Row) -> list[Row]:
    """Returns the rows of a latency file that have figures."""
    return [row for row in document["rows"] if "cpu_ms" in row]


def latency_bars(document: Row) -> str:
    """Returns a bar to the median time of each artifact, with marks at the 90th and 99th percentiles."""
    bars = []
    for row in ran(document):
        times = row[f"{row['judged_by']}_ms"]
        tail = tuple(times[name] for name in ("p90", "p99") if times[name] is not None)
        figures = " / ".join(f"{value:.3g}" for value in (times["p50"], *tail)) + " ms"
        threads = "" if row["threads"] == 1 else f", {row['threads']} threads"
        bars.append(Bar(row["label"] + threads, figures, times["p50"], tail))
    return bar_chart(bars, "median time of each artifact, with its 90th and 99th percentiles")


def time_ridges(document: Row) -> str | None:
    """Returns how the times of each artifact are distributed around its median; None where none were kept."""
    ridges, seen = [], [1.0]
    for row in document["rows"]:
        times = row.get("times_ms") or [0.0]
        if not (middle := median(times)):
            continue  # none were kept, or a browser's clock saw none
        shares = [time / middle for time in times]
        threads = "" if row["threads"] == 1 else f", {row['threads']} threads"
        ridges.append(Ridge(row["label"] + threads, f"{min(times):.3g} to {max(times):.3g} ms", shares))
        seen += shares
    if not ridges:
        return None
    held = [min(max(share, 1 - WIDEST), 1 + WIDEST) for share in seen]
    axis = linear_axis("time of a run, as a multiple of the median", held, from_zero=False)
    return ridge_chart(ridges, axis, "how the times of each artifact are distributed around its median")


def points_of(document: Row, eers: Mapping[str, float]) -> list[Point]:
    """Returns the artifacts of a latency file that ran with one thread.

    Args:
        document: The results.
        eers: EERs by the sha256 of model files, from wherever they were measured.
    """
    return [
        Point(
            row["label"], row["cpu_ms"]["p50"], row["bytes"] / 1024, row.get("eer", eers.get(row["sha256"]))
        )
        for row in ran(document)
        if row["threads"] == 1
    ]


def known_eers(documents: Sequence[Row]) -> dict[str, float]:
    """Returns the EER on clean audio of every model file in the results, by its sha256."""
    return {
        row["file"]["sha256"]: row["eer"]["estimate"]
        for document in documents
        if document["kind"] == "robustness"
        for row in document["rows"]
        if row["condition"] == "clean"
    }


def undominated(points: Sequence[Point]) -> set[str]:
    """Returns the names of the points that no other beats in one figure without losing in another.

    The EER counts where all of them have one: against an unknown figure nobody wins.
    """
    with_eer = all(point.eer is not None for point in points)

    def figures(point: Point) -> tuple[float, ...]:
        eer = (point.eer,) if with_eer and point.eer is not None else ()
        return (point.milliseconds, point.kib, *eer)

    def beats(one: Point, other: Point) -> bool:
        a, b = figures(one), figures(other)
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return {point.name for point in points if not any(beats(other, point) for other in points)}


def size_chart(points: Sequence[Point]) -> str:
    """Returns size against time; filled are the points that no other beats."""
    kib = [point.kib for point in points]
    size_axis = log_axis if max(kib) > WIDE_RANGE * min(kib) else linear_axis
    axes = (
        linear_axis("processor time per clip, ms", [point.milliseconds for point in points]),
        size_axis("size of the file, KiB", kib),
    )
    return _choice(Plot(*axes, height=300), points, lambda point: point.kib, "size against time")


def error_chart(points: Sequence[Point]) -> str | None:
    """Returns the EER against time of the points that have one; None where fewer than two do."""
    eers = [100 * point.eer for point in points if point.eer is not None]
    if len(eers) < 2:
        return None
    axes = (
        linear_axis("processor time per clip, ms", [point.milliseconds for point in points]),
        linear_axis("EER, %", eers),
    )
    return _choice(
        Plot(*axes, height=300),
        points,
        lambda point: None if point.eer is None else 100 * point.eer,
        "EER against time",
    )


def _choice(plot: Plot, points: Sequence[Point], height: Callable[[Point], float | None], about: str) -> str:
    """Puts the points that have a height into a plot, by their numbers in the list of all."""
    best = undominated(points)
    drawn = [(number, point, height(point)) for number, point in enumerate(points, start=1)]
    places = [(number, point, value) for number, point, value in drawn if value is not None]
    for _, point, value in places:
        css = "s0" if point.name in best else "beaten"
        plot.dot(point.milliseconds, value, css, summary(point), radius=5)
    for number, point, value in places:
        plot.number(point.milliseconds, value, number)
    return plot.svg(about)


def summary(point: Point) -> str:
    """Returns a point's name and figures in words."""
    eer = "" if point.eer is None else f", EER {point.eer:.1%}"
    return f"{point.name}: {point.milliseconds:.3g} ms, {point.kib:,.0f} KiB{eer}"


def heat_table(document: Row) -> str:
    """Returns conditions by artifacts as an HTML table, coloured by how far the EER and decisions moved."""
    labels = list(dict.fromkeys(row["label"] for row in document["rows"]))
    conditions = dict.fromkeys((row["condition"], row["about"]) for row in document["rows"])
    cells = {(row["condition"], row["label"]): row for row in document["rows"]}
    worst = max(LEAST_HEAT, *(abs(row["eer_change"]["estimate"]) for row in document["rows"]))
    most = max(LEAST_HEAT, *(row["flipped"]["estimate"] for row in document["rows"]))
    names = "".join(f'<th colspan="3">{escape(label)}</th>' for label in labels)
    heads = "<th>EER</th><th>change</th><th>flipped</th>" * len(labels)
    lines = [f"<tr><th></th>{names}</tr><tr><th>condition</th>{heads}</tr>"]
    for name, about in conditions:
        row_cells = "".join(_heat_cells(cells.get((name, label)), worst, most) for label in labels)
        lines.append(f'<tr><th title="{escape(about)}">{escape(name)}</th>{row_cells}</tr>')
    return '<table class="heat">' + "\n".join(lines) + "</table>"


def _heat_cells(row: Row | None, worst: float, most: float) -> str:
    """Returns the three cells of a condition; a change that may be chance is not set in bold."""
    if row is None:
        return "<td></td>" * 3
    change, flipped = row["eer_change"], row["flipped"]
    sure = change["low"] > 0 or change["high"] < 0
    points = f"{100 * change['estimate']:+.1f}"
    share = change["estimate"] / worst
    return (
        f"<td>{row['eer']['estimate']:.1%}</td>"
        f"<td {_heat(share)}>{f'<b>{points}</b>' if sure else points}</td>"
        f"<td {_heat(flipped['estimate'] / most)}>{flipped['estimate']:.1%}</td>"
    )


def _heat(share: float) -> str:
    """Returns the colour of a cell: red for worse, blue for better, none for no change."""
    colour = "214, 76, 60" if share > 0 else "52, 120, 200"
    return f'style="background: rgba({colour}, {STRONGEST * min(abs(share), 1):.2f})"'


def layer_bars(document: Row) -> str:
    """Returns a bar for each of the dearest layers, by its share of the multiply-adds."""
    layers = document["rows"]
    total = sum(layer["macs"] for layer in layers) or 1
    dearest = sorted(layers, key=lambda layer: -layer["macs"])[:SHOWN_LAYERS]
    bars = [
        Bar(
            _short(layer["name"]), f"{layer['macs'] / 1e6:,.1f} M, {layer['macs'] / total:.1%}", layer["macs"]
        )
        for layer in dearest
        if layer["macs"]
    ]
    return bar_chart(bars, "multiply-adds of the dearest layers")


def _short(name: str, most: int = 34) -> str:
    """Returns the end of a long name, which is what tells layers apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def memory_profile(document: Row) -> str:
    """Returns what is live in memory while each layer runs, in their order."""
    live = [layer["live_bytes"] / 2**20 for layer in document["rows"]]
    axes = (linear_axis("layer, in the order they run", [len(live)]), linear_axis("live MiB", live))
    plot = Plot(*axes, height=240)
    steps = [(index + end, size) for index, size in enumerate(live) for end in (0, 1)]
    plot.area(steps, "s0")
    plot.line(steps, "s0")
    return plot.svg("memory that is live while each layer runs")
