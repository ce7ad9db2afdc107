"""The tables of the documents are those of the committed results."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antispoof.errors import CheckFailed, UserError
from antispoof.metrics import decision_threshold, equal_error_rate
from antispoof.protocols import Trial
from antispoof.score_files import ScoredTrials
from benchmarks import gate, report
from benchmarks.pages.charts import Plot, linear_axis, log_axis
from benchmarks.pages.page import TIMED, page, read_documents
from benchmarks.pages.result_charts import Point, undominated
from benchmarks.pages.result_tables import RENDERERS
from benchmarks.pages.score_charts import System, det_chart, movement_chart
from benchmarks.pages.table_parts import measured_on


def test_the_documents_agree_with_the_results() -> None:
    assert report.main(["--check"]) == 0


def test_every_result_stands_in_a_document() -> None:
    text = "".join((report.REPOSITORY / name).read_text(encoding="utf-8") for name in report.DOCUMENTS)
    shown = set(re.findall(r"<!-- results: ([\w-]+) -->", text))
    kinds = {path.stem: json.loads(path.read_text())["kind"] for path in report.RESULTS.glob("*.json")}
    # What has no table is drawn on the page alone.
    assert {name for name, kind in kinds.items() if kind in RENDERERS} == shown


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "REPOSITORY", tmp_path)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    for name in report.DOCUMENTS:
        (tmp_path / name).write_text("No table.\n")
    return tmp_path


@pytest.mark.parametrize("name", report.DOCUMENTS)
def test_an_edited_table_is_found_and_mended(repository: Path, name: str) -> None:
    mark = "<!-- results: latency-aasist-l-onnx -->\n"
    readme = repository / name
    readme.write_text(f"Before.\n{mark}| by hand | 1 ms |\n<!-- end -->\nAfter.\n")
    with pytest.raises(CheckFailed, match=rf"of {re.escape(name)} are not.*report\.py"):
        report.main(["--check"])
    assert "by hand" in readme.read_text()
    assert report.main([]) == 0
    text = readme.read_text()
    assert "by hand" not in text
    assert text.startswith(f"Before.\n{mark}| file |")
    assert text.endswith("<!-- end -->\nAfter.\n")
    assert report.main(["--check"]) == 0


def test_a_table_without_results_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", repository)
    (repository / "README.md").write_text("<!-- results: nothing -->\n<!-- end -->\n")
    with pytest.raises(UserError, match="nothing"):
        report.main([])
    (repository / "nothing.json").write_text('{"kind": "poem"}')
    with pytest.raises(UserError, match="poem"):
        report.main([])


def test_a_latency_table_says_what_failed_and_which_clock_judged_how_many_threads() -> None:
    document = json.loads((report.RESULTS / "latency-aasist-l-onnx.json").read_text())
    first, second = (dict(row) for row in document["rows"][:2])
    wall = {"threads": 2, "judged_by": "wall", "memory_mib": {"loaded": None, "peak": None}}
    failed = {"label": "torn", "threads": 1, "failed": "not a | model"}
    document["rows"] = [first, failed, second | wall | {"wall_ms": {"p50": 77.0}}]
    document["conditions"]["cpu"]["virtual"] = False
    lines = RENDERERS["latency"](document).splitlines()
    assert lines[3] == "| torn |  |  |  |  | not a / model |"
    assert lines[4].startswith(f"| {second['label']}, 2 threads | 419 KiB | 77 ms |")
    assert "|  | faster |" in lines[4]  # no memory is known
    assert "One thread: processor time; more: by the clock, interleaved." in lines[-1]
    assert "2 cores," in lines[-1]
    document["rows"] = [first]
    assert "processor time per clip" in RENDERERS["latency"](document)


def test_a_table_says_of_whom_it_holds_figures_that_were_measured_elsewhere() -> None:
    here, there = (
        {
            "date": f"{day}T12:00:00",
            "cpu": {"model": cpu, "cores": 2, "virtual": False},
            "packages": {"torch": "2"},
        }
        for cpu, day in (("Near", "2026-11-02"), ("Far", "2026-11-01"))
    )
    rows = [
        {"detectors": {"own": {}, "alike": {"measured": here}, "all": {"measured": there}, "some": {}}},
        {"detectors": {"own": {}, "alike": {"measured": here}, "all": {"measured": there}}},
        {"detectors": {"own": {}, "alike": {}, "some": {"measured": there}}},
    ]
    far = "Far, 2 cores, torch 2, 2026-11-01"
    assert measured_on({"conditions": here, "rows": rows}) == (
        f"Near, 2 cores, torch 2, 2026-11-02. all: {far}. some: {far} (in part)."
    )


def test_a_name_with_a_bar_stays_in_its_cell() -> None:
    document = json.loads((report.RESULTS / "robustness-fscnn.json").read_text())
    columns = RENDERERS["robustness"](document).splitlines()[0].count("|")
    for row in document["rows"]:
        row["label"] = "a|b"
    assert RENDERERS["robustness"](document).splitlines()[0].count("|") == columns


VOID = {"meta", "circle", "rect", "path"}  # elements that this page writes without a closing tag


class Reader(HTMLParser):
    """Gathers the tags of a page and its text, and fails where tags do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID and tag != "!doctype":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag == "circle":  # the ones with a tip close
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(content: str) -> Reader:
    reader = Reader()
    reader.feed(content)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def systems() -> list[System]:
    random = np.random.default_rng(0)
    genuine = np.arange(400) < 150
    trials = [Trial(f"t{i}", "bonafide" if is_one else "spoof") for i, is_one in enumerate(genuine)]
    first = random.normal(np.where(genuine, 2.0, -1.0), 1.5)
    second = first + random.normal(0, 0.8, first.size)
    return [
        System("<before>", ScoredTrials(trials, first, None)),
        System("after & later", ScoredTrials(trials[::-1], second[::-1], None)),
    ]


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(systems: list[System]) -> None:
    documents = read_documents(report.RESULTS)
    content = page(documents, systems, RENDERERS)
    reader = read(content)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in reader.tags}
    links = {value for _, attrs in reader.tags for name, value in attrs.items() if name in ("href", "src")}
    ids = {f"#{attrs['id']}" for _, attrs in reader.tags if "id" in attrs}
    assert links == ids
    assert not re.search(r"url\(|@import|https?://", content)
    for name in ("<before>", "after & later"):
        assert name in reader.text


def test_the_page_shows_every_measured_artifact_and_condition() -> None:
    documents = read_documents(report.RESULTS)
    shown = read(page(documents, [], RENDERERS)).text
    for document in documents.values():
        for row in document["rows"]:
            for key in ("label", "condition", "candidate", "variant"):
                assert row.get(key, "") in shown
            if document["kind"] in TIMED and "cpu_ms" in row:
                assert f"{row['cpu_ms']['p50']:.3g} / {row['cpu_ms']['p90']:.3g}" in shown


def test_the_page_says_what_a_table_is_beside_and_takes_marks_of_code_for_what_they_are() -> None:
    documents = read_documents(report.RESULTS)
    shown = read(page(documents, [], RENDERERS)).text
    assert "Instead of fscnn.onnx, whose EER is" in shown
    assert "`" not in shown


def test_a_number_in_a_chart_is_nearest_to_its_own_point() -> None:
    places = [(1.0, 99.0), (2.0, 97.0), (99.0, 99.0), (50.0, 50.0), (52.0, 50.0)]
    axis = linear_axis("", [0, 100])
    plot = Plot(axis, axis)
    for place in places:
        plot.dot(*place, "s0", radius=5)
    for number, place in enumerate(places):
        plot.number(*place, number)
        to = [math.dist(plot.numbers[-1], plot.at(*other)) for other in places]
        assert min(to) == to[number] > 5
        assert plot.numbers[-1][1] - 8 > 0  # not cut off by the upper edge


def test_times_that_were_kept_are_drawn_and_older_results_do_without() -> None:
    document = json.loads((report.RESULTS / "latency-aasist-l-onnx.json").read_text())
    for row in document["rows"]:
        row.pop("times_ms", None)
    assert "Distribution" not in page({"x": document}, [], RENDERERS)
    first, second = document["rows"][:2]
    first["times_ms"] = [10.0] * 30 + [12.0] * 10 + [50.0]
    second["times_ms"] = [3.0] * 5
    content = page({"x": document}, [], RENDERERS)
    assert "10 to 50 ms" in read(content).text
    assert "3 to 3 ms" in read(content).text
    # Bins of the first: the median fullest, a third of it, and what took five times as long at the edge.
    tops = re.findall(r'class="ridge" d="M14 58((?:V[\d.]+h[\d.]+)+)', content)[0]
    heights = [58 - float(top) for top in re.findall(r"V([\d.]+)", tops)]
    tallest = max(heights)
    assert sorted(heights)[-3:] == pytest.approx([tallest / 30, tallest / 3, tallest], abs=0.1)
    assert heights[-1] == pytest.approx(tallest / 30, abs=0.1)


ONE_OF_A_KIND = {json.loads(path.read_text())["kind"]: path for path in report.RESULTS.glob("*.json")}


@pytest.mark.parametrize("kind", sorted(ONE_OF_A_KIND.keys() & RENDERERS.keys()))
def test_a_damaged_file_is_named_in_one_line(
    kind: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = json.loads(ONE_OF_A_KIND[kind].read_text())
    damaged = [{**whole, "rows": rows} for rows in (3, [3], [{}])]
    damaged += [{**whole, "conditions": conditions} for conditions in (3, {})]
    first = whole["rows"][0]
    damaged += [{**whole, "rows": [{k: v for k, v in first.items() if k != key}]} for key in first]
    damaged += [{**whole, "rows": [{**first, key: [{}]}, *whole["rows"][1:]]} for key in first]
    refused = 0
    for document in damaged:
        try:
            page({"mine": document}, [], RENDERERS)
        except UserError as error:
            assert re.match(r"mine\.json: damaged, or of another version.*", str(error))  # noqa: PT017 - or drawn
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
    assert refused >= 4
    (repository / "README.md").write_text("<!-- results: mine -->\n<!-- end -->\n")
    monkeypatch.setattr(report, "RESULTS", repository)
    (repository / "mine.json").write_text(json.dumps({**whole, "conditions": {}}))
    with pytest.raises(UserError, match=r"mine\.json: damaged.*: it lacks"):
        report.main([])


def test_a_label_cannot_smuggle_markup_into_the_page() -> None:
    document = json.loads((report.RESULTS / "latency-aasist-l-onnx.json").read_text())
    document["rows"][0]["label"] = "<script>alert(1)</script>"
    content = page({"x": document}, [], RENDERERS)
    assert "<script" not in content
    assert "<script>alert(1)</script>" in read(content).text


def test_flips_on_the_chart_are_those_of_the_gate(systems: list[System]) -> None:
    before, after = systems
    moved = movement_chart(before, after)
    second = after.scored.scores[::-1]  # the other file has the trials in another order
    threshold = decision_threshold(*before.classes)
    flips = gate.flips(before.scored.scores, second, before.scored.trials, threshold)
    assert moved.flipped == len(flips) > 0
    assert moved.svg.count("flipped") == len(flips)
    assert moved.drawn == moved.trials == 400


def test_the_det_chart_marks_each_eer(systems: list[System]) -> None:
    chart = det_chart(systems)
    for system in systems:
        assert f"EER {equal_error_rate(*system.classes).value:.2%}" in chart


def test_systems_without_a_common_trial_are_refused(systems: list[System]) -> None:
    trials = [Trial("other", "bonafide"), Trial("another", "spoof")]
    stranger = System("stranger", ScoredTrials(trials, np.array([1.0, 0.0]), None))
    with pytest.raises(UserError, match="no trial in common"):
        movement_chart(systems[0], stranger)


def test_a_point_is_beaten_only_by_one_that_loses_nothing() -> None:
    small, fast, both = (Point("small", 9, 1, 0.1), Point("fast", 1, 9, 0.1), Point("both", 9, 9, 0.1))
    assert undominated([small, fast, both]) == {"small", "fast"}
    # Where each has an EER, a better one saves a file that is slower and larger.
    accurate = Point("accurate", 9, 9, 0.05)
    assert undominated([small, fast, accurate]) == {"small", "fast", "accurate"}
    unknown = Point("unknown", 9, 9, None)
    assert undominated([small, fast, unknown]) == {"small", "fast"}


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=20), st.booleans())
def test_axes_hold_their_values(values: list[float], from_zero: bool) -> None:
    for axis in (linear_axis("x", values, from_zero=from_zero), log_axis("x", values)):
        assert axis.low <= min(values)
        assert axis.high >= max(values)
        assert 2 <= len(axis.ticks) <= 60
        places = [axis.place(value) for value in sorted(values)]
        assert places == sorted(places)
        assert all(0 <= place <= 1 for place in places)


def test_the_page_is_written_whole_and_never_over_another(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    assert report.main(["--html", str(target)]) == 0
    assert target.read_text().startswith("<!doctype html>")
    with pytest.raises(UserError, match="--force"):
        report.main(["--html", str(target)])
    assert report.main(["--html", str(target), "--force"]) == 0
    with pytest.raises(UserError, match="holds no results"):
        report.main(["--html", str(tmp_path / "b.html"), "--results", str(tmp_path)])
    with pytest.raises(UserError, match="--html"):
        report.main(["--scores", "a.tsv"])
