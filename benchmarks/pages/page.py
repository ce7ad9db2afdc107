"""Writes the results as one HTML page that needs nothing else: no script, no font, no network.

The page follows the reader's light or dark setting, and its charts keep their text legible on a phone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from antispoof.errors import UserError
from antispoof.outputs import refuse_existing, write_whole
from benchmarks.pages.result_charts import (
    error_chart,
    heat_table,
    known_eers,
    latency_bars,
    layer_bars,
    memory_profile,
    points_of,
    ran,
    size_chart,
    summary,
    time_ridges,
    undominated,
)
from benchmarks.pages.score_charts import System, det_chart, movement_chart
from benchmarks.results_file import reading

Row = dict[str, Any]
Renderers = Mapping[str, Callable[[Row], str]]

# In the order of the page; results of other kinds follow, under their files' names.
TITLES = {
    "bench": "One model, everything",
    "latency": "Latency",
    "peers": "Beside other runtimes",
    "accuracy": "Accuracy",
    "parity": "Parity",
    "robustness": "Robustness",
    "cost": "Cost by layer",
}
STYLE = Path(__file__).with_name("page.css")
TIMED = ("latency", "peers", "bench")  # kinds whose rows are those of latency.py, with or without more


def read_documents(folder: Path) -> dict[str, Row]:
    """Returns every results file of a folder by its name, sorted.

    Raises:
        UserError: There is none, or one is not JSON of a known kind.
    """
    documents = {}
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as JSON ({error})") from None
        whole = isinstance(document, dict) and {"kind", "rows", "conditions"} <= document.keys()
        if not whole or not isinstance(document["kind"], str):
            raise UserError(f"{path}: no results file of this project")
        documents[path.stem] = document
    if not documents:
        raise UserError(f"{folder} holds no results")
    return documents


def page(documents: Mapping[str, Row], systems: Sequence[System], renderers: Renderers) -> str:
    """Returns the page.

    Args:
        documents: Results files by name.
        systems: Score files, the one that the others are compared with first.
        renderers: What makes a Markdown table of a kind of results.

    Raises:
        UserError: A file lacks what its kind has.
    """
    eers: dict[str, float] = {}
    for name, document in documents.items():
        with reading(f"{name}.json"):
            eers |= known_eers([document])
    sections = [("scores", "Scores", _scores(systems))] if systems else []
    for name, document in sorted(documents.items(), key=lambda item: _place(item[1]["kind"])):
        with reading(f"{name}.json"):
            sections.append((name, _title(name, document["kind"]), _section(document, eers, renderers)))
    links = " ".join(f'<a href="#{escape(name)}">{escape(title)}</a>' for name, title, _ in sections)
    body = "\n".join(
        f'<section id="{escape(name)}"><h2>{escape(title)}</h2>\n{content}</section>'
        for name, title, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Benchmarks</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style></head>\n"
        f"<body><main><h1>Benchmarks</h1>\n<nav>{links}</nav>\n{body}\n</main></body></html>\n"
    )


def _place(kind: str) -> int:
    return list(TITLES).index(kind) if kind in TITLES else len(TITLES)


def _title(name: str, kind: str) -> str:
    """Returns what a section is called: its kind in words, and what the file's name adds to it."""
    if kind not in TITLES:
        return name
    return f"{TITLES[kind]}: {name.removeprefix(kind).lstrip('-')}".removesuffix(": ")


def write_page(path: Path, content: str, force: bool) -> None:
    """Writes the page whole or not at all.

    Raises:
        UserError: It exists and ``force`` is false, or it cannot be written.
    """
    refuse_existing(path, force)
    write_whole(path, content)


def figure(title: str, content: str, caption: str) -> str:
    """Returns a card with a chart; title and caption are plain text."""
    return f"<figure><h3>{escape(title)}</h3>\n{content}\n<figcaption>{escape(caption)}</figcaption></figure>"


def _cards(*figures: str) -> str:
    return f'<div class="cards">{"".join(figures)}</div>'


def _legend(names: Sequence[str]) -> str:
    items = (f'<li><i class="s{index}"></i>{escape(name)}</li>' for index, name in enumerate(names))
    return f'<ul class="legend">{"".join(items)}</ul>'


def _scores(systems: Sequence[System]) -> str:
    names = [system.name for system in systems]
    cards = [
        figure(
            "DET curves",
            _legend(names) + det_chart(systems),
            "Miss against false alarm at every threshold, on the probit scale. The points are the EERs, "
            "where a curve meets the dashed diagonal.",
        )
    ]
    for system in systems[1:]:
        moved = movement_chart(systems[0], system)
        share = moved.flipped / moved.trials
        drawn = "" if moved.drawn == moved.trials else f" {moved.drawn:,} trials are drawn."
        cards.append(
            figure(
                f"{system.name} against {names[0]}",
                _legend(("bona fide", "spoof")) + moved.svg,
                f"{moved.flipped:,} of {moved.trials:,} decisions flipped ({share:.1%}) at the threshold of "
                f"the EER of {names[0]} (dashed); those are drawn larger.{drawn}",
            )
        )
    return _cards(*cards)


def _section(document: Row, eers: Mapping[str, float], renderers: Renderers) -> str:
    kind = document["kind"]
    charts = ""
    if kind in TIMED and ran(document):
        charts = _timed(document, eers)
    elif kind == "on-device" and (shapes := _distribution(document)):
        charts = _cards(*shapes)
    elif kind == "robustness":
        charts = _robustness(document)
    elif kind == "cost" and document["rows"]:
        charts = _cost(document)
    verdict = "".join(
        f'<p class="verdict">{escape(line)}</p>' for line in document["conditions"].get("verdict", ())
    )
    return f"{_conditions(document)}{verdict}{charts}{_details(document, renderers, bool(charts))}"


def _conditions(document: Row) -> str:
    """Returns the line that says where, when and from which commit a results file is."""
    conditions = document["conditions"]
    cpu, commit = conditions.get("cpu", {}), conditions.get("commit") or {}
    parts = [
        f"{cpu['model']}, {cpu['cores']} {'virtual ' if cpu.get('virtual') else ''}cores" if cpu else "",
        conditions.get("date", "")[:10],
        f"commit {commit['sha'][:10]}{' with changes' if commit['dirty'] else ''}" if commit else "",
        conditions.get("os", ""),
    ]
    return f'<p class="soft">{escape(" · ".join(filter(None, parts)))}</p>'


def _timed(document: Row, eers: Mapping[str, float]) -> str:
    points = points_of(document, eers)
    cards = [
        figure(
            "Time per clip",
            latency_bars(document),
            "Bar: median. Marks: 90th and 99th percentiles. One thread: processor time; more: by the clock.",
        )
    ]
    cards += _distribution(document)
    if points:
        best = undominated(points)
        listed = "".join(
            f'<li class="{"best" if point.name in best else "beaten"}">{escape(summary(point))}</li>'
            for point in points
        )
        with_eer = " and EER" if all(point.eer is not None for point in points) else ""
        caption = f"Filled: no other file is as good in both time and size{with_eer} and better in one."
        cards.append(
            figure("Size against time", f"{size_chart(points)}<ol class=points>{listed}</ol>", caption)
        )
        if errors := error_chart(points):
            cards.append(figure("EER against time", errors, "The same numbers and the same filled points."))
    return _cards(*cards)


def _distribution(document: Row) -> list[str]:
    """Returns the card of how times are distributed; none for results that kept no times."""
    ridges = time_ridges(document)
    caption = (
        "Each run's time as a multiple of its row's median, up to 200 of them, each row to its own height; "
        "what is beyond half or one and a half is drawn at the edge. Named are the least and the most."
    )
    return [figure("Distribution of times", ridges, caption)] if ridges else []


def _robustness(document: Row) -> str:
    counts = document["conditions"]["trials"]
    return figure(
        "What channels do to it",
        f'<div class="wide">{heat_table(document)}</div>',
        "EER; its change from clean audio in percentage points, in bold where the 95 % interval leaves out "
        "zero; and the share of decisions that flipped. Red is worse. "
        f"{counts['bonafide']} bona fide clips, {counts['spoof']} spoofs.",
    )


def _cost(document: Row) -> str:
    total = sum(layer["macs"] for layer in document["rows"])
    speed = document["conditions"].get("speed")
    reached = ""
    if speed:
        limit = max(speed["limits_gflops"].values())
        reached = (
            f" It computes at {speed['gflops']:.1f} GFLOP/s, {speed['gflops'] / limit:.0%} of what a matrix "
            "product reached in the same run."
        )
    return _cards(
        figure(
            "Multiply-adds by layer",
            layer_bars(document),
            f"{total / 1e6:,.0f} million in all.{reached}",
        ),
        figure("Live memory", memory_profile(document), "Activations that are needed while a layer runs."),
    )


def _details(document: Row, renderers: Renderers, folded: bool) -> str:
    """Returns the table that the README has of such results, folded away where there is a chart."""
    renderer = renderers.get(document["kind"])
    if renderer is None:
        return ""
    content = f'<div class="wide">{markdown_tables(renderer(document))}</div>'
    return f"<details><summary>figures</summary>{content}</details>" if folded else content


def markdown_tables(markdown: str) -> str:
    """Returns the tables of a Markdown text as HTML, with the words between and behind them."""
    blocks = markdown.strip().split("\n\n")
    return "".join(_table(block) if block.startswith("|") else f"<p>{_inline(block)}</p>" for block in blocks)


def _inline(markdown: str) -> str:
    """Returns a line of Markdown as HTML; of its marks, only those of code occur here."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(markdown))


def _table(markdown: str) -> str:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in rows[2:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
