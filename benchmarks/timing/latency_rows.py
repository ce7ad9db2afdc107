"""Turns the times of a session into rows of figures, compares them with earlier ones, lays out the table."""

from __future__ import annotations

import math
from dataclasses import asdict
from statistics import median
from typing import Any

from antispoof.audio import SAMPLE_RATE
from antispoof.bootstrap import Interval
from antispoof.errors import UserError
from antispoof.manifest import describe_file
from benchmarks.timing.harness import Measured, Session, judge, judged
from benchmarks.timing.ratios import (
    kept_times,
    median_interval,
    percentiles,
    ratio_interval,
    verdict,
    verdict_of_change,
)
from benchmarks.timing.worker_handle import Artifact

COLUMNS = (
    *("name", "threads", "KiB", "load ms", "first ms", "p50 ms", "p90 ms", "p99 ms", "clock p50 ms"),
    *("MiB", "peak MiB", "RTF", "RTF hop", "ratio", "verdict"),
)
Row = dict[str, Any]


def rows_of(session: Session, hop_s: float) -> list[Row]:
    """Returns a row of plain figures for each artifact; those that failed say why and have no figures."""
    base = session.measured[0]
    rows = []
    for one in session.measured:
        row: Row = {"label": one.artifact.label, "threads": session.threads, "file": one.artifact.path.name}
        row |= one.facts.get("facts", {})
        if one.failure is not None:
            row["failed"] = one.failure
        else:
            row |= figures(one, session.threads, hop_s)
            row["harness_overhead"] = session.overhead
            if one is not base and base.failure is None:
                row |= comparison(one, base, session.threads)
        rows.append(row)
    return rows


def figures(one: Measured, threads: int, hop_s: float) -> Row:
    """Returns times in milliseconds, real-time factors and memory of one artifact."""
    *leading, samples = one.facts["facts"]["shape"]
    judged_s = judged(one.times, threads)
    typical_s = median(judged_s) / math.prod(leading)
    memory = {"loaded": one.facts["loaded_kib"], "peak": one.peak_kib}
    before = one.facts["before_kib"]
    return {
        "judged_by": judge(threads),
        "load_ms": _both(one.facts["load"]),
        "first_run_ms": _both(one.facts["first"]),
        "warm_up": {"runs": len(one.warm_up), "steady": one.steady},
        "rounds": len(one.times),
        "wall_ms": _distribution([1e3 * wall for wall, _ in one.times]),
        "cpu_ms": _distribution([1e3 * cpu for _, cpu in one.times]),
        "real_time_factor": {"window": typical_s / (samples / SAMPLE_RATE), "hop": typical_s / hop_s},
        "memory_mib": {
            name: None if None in (kib, before) else (kib - before) / 1024 for name, kib in memory.items()
        },
        "times_ms": kept_times([1e3 * time for time in judged_s]),
    }


def _both(times: tuple[float, float]) -> Row:
    return {"wall": 1e3 * times[0], "cpu": 1e3 * times[1]}


def _distribution(times_ms: list[float]) -> Row:
    interval = median_interval(times_ms)
    return {**percentiles(times_ms), "p50_low": interval.low, "p50_high": interval.high}


def comparison(one: Measured, base: Measured, threads: int) -> Row:
    """Returns the ratios of one artifact's times to the base's, and the verdict."""
    wall, base_wall = ([wall for wall, _ in times] for times in (one.times, base.times))
    cpu, base_cpu = ([cpu for _, cpu in times] for times in (one.times, base.times))
    ratios = {"wall": ratio_interval(wall, base_wall), "cpu": ratio_interval(cpu, base_cpu)}
    return {
        "ratio": {"base": base.artifact.label, **{name: asdict(ratio) for name, ratio in ratios.items()}},
        "verdict": verdict(ratios[judge(threads)]),
    }


def comparable(
    earlier: dict[str, Any], artifacts: list[Artifact], threads: list[int], source: str
) -> dict[tuple[str, int], Row]:
    """Returns the earlier rows that the ratios to be measured can be compared with, by label and threads.

    Times of two measurements are not comparable; the ratio to a base that both have is.

    Raises:
        UserError: There are none.
        KeyError: Or another error of that kind: a row is not one that latency.py wrote.
    """
    base = artifacts[0]
    sha256 = describe_file(base.path).sha256
    wanted = {(artifact.label, count) for artifact in artifacts[1:] for count in threads}
    rows = {(row.get("label"), row.get("threads")): row for row in earlier["rows"]}
    same_base = {count for count in threads if rows.get((base.label, count), {}).get("sha256") == sha256}
    kept = {
        key: row
        for key, row in rows.items()
        if key in wanted and key[1] in same_base and row.get("ratio", {}).get("base") == base.label
    }
    if not kept:
        raise UserError(
            f"{source}: holds no ratio of one of these artifacts to {base.label!r} as it is now; between "
            "measurements, only ratios to the same file, of the same name and put first, can be compared"
        )
    for (_, count), row in kept.items():
        _ratio_of(row, judge(count)), row["sha256"]
    return kept


def _ratio_of(row: Row, by: str) -> Interval:
    ratio = Interval(**row["ratio"][by])
    if not all(math.isfinite(value) and value > 0 for value in (ratio.low, ratio.estimate, ratio.high)):
        raise ValueError(f"the ratio of {row['label']} is {ratio.estimate!r}")
    return ratio


def add_changes(rows: list[Row], earlier: dict[tuple[str, int], Row], source: str, same_cpu: bool) -> None:
    """Adds to each row how its ratio to the base has changed since earlier results."""
    for row in rows:
        old = earlier.get((row["label"], row["threads"]))
        if old is None or "ratio" not in row:
            continue
        then, now = (_ratio_of(r, row["judged_by"]) for r in (old, row))
        row["against"] = {
            "source": source,
            "same_file": old["sha256"] == row["sha256"],
            "same_cpu": same_cpu,
            "change": now.estimate / then.estimate,
            "verdict": verdict_of_change(now, then),
        }


def table(rows: list[Row]) -> str:
    """Returns the rows as text."""
    lines = [COLUMNS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Returns the cells padded: words to the left, numbers to the right."""
    name, *numbers, text = cells
    padded = (cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True))
    return "  ".join((name.ljust(widths[0]), *padded, text)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    if "failed" in row:
        missing = ["-"] * (len(COLUMNS) - 3)
        return (row["label"], str(row["threads"]), *missing, f"failed: {row['failed']}")
    by = row["judged_by"]
    times, factor, memory = row[f"{by}_ms"], row["real_time_factor"], row["memory_mib"]
    cells = [row["bytes"] / 1024, row["load_ms"][by], row["first_run_ms"][by]]
    cells += [
        times["p50"],
        times["p90"],
        times["p99"],
        row["wall_ms"]["p50"],
        memory["loaded"],
        memory["peak"],
    ]
    numbers = [_number(x, 1) for x in cells] + [_number(factor[key], 3) for key in ("window", "hop")]
    return (_name(row), str(row["threads"]), *numbers, *_verdict_cells(row))


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _name(row: Row) -> str:
    return row["label"] if row["manifest"] or row["format"] == "torch" else f"{row['label']} (no manifest)"


def _verdict_cells(row: Row) -> tuple[str, str]:
    if "ratio" not in row:
        return "-", ""
    ratio = row["ratio"][row["judged_by"]]
    text = row["verdict"]
    if change := row.get("against"):
        what = f"{'same' if change['same_file'] else 'other'} file"
        where = "" if change["same_cpu"] else ", other CPU"
        text += f"; {change['change']:.3f} times its earlier ratio ({what}{where}): {change['verdict']}"
    return f"{ratio['estimate']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})", text
