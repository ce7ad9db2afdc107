"""Times that the page measures: counted as phones' are, read by the report, told from other runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.devices.runs import Answer, Block, figures
from benchmarks.pages import result_tables
from tests.web.page import browser, script


@pytest.mark.parametrize(
    "blocks", [[[5.0, 6.0, 9.0], [5.5, 6.1, 30.0]], [[5.0] * 60, [7.0] * 60, [6.9] * 60]]
)
def test_the_page_counts_times_as_phones_are_timed(blocks: list[list[float]]) -> None:
    answers = [Answer("", "", (), 0, 0, tuple(block), 0) for block in blocks]
    expected = figures([Block(answer, None, None) for answer in answers])
    code = f"console.log(JSON.stringify(figures({json.dumps(blocks)})))"
    ours = script({"engine/statistics.js": "{ figures }"}, code)
    assert {name: expected[name] for name in ("steady", "blocks")} == {
        k: ours[k] for k in ("steady", "blocks")
    }
    assert expected["ms"] == pytest.approx(ours["ms"])


def test_a_runtime_that_failed_is_tried_again_after_a_week() -> None:
    code = """
const kept = {}, day = 24 * 3600 * 1000, now = 1e12;
const setItem = (name, text) => (kept[name] = text);
globalThis.localStorage = { getItem: (name) => kept[name] ?? null, setItem };
const fast = { runtime: "ort-wasm", threads: 1 }, failed = { runtime: "litert-wasm", threads: 1 };
rememberTime("m", fast, 5, now);
rememberTime("m", failed, null, now);
const after = (days) => [fast, failed].map((candidate) => isMeasured("m", candidate, now + days * day));
const choice = rememberedChoice("m", [failed, fast]).runtime;
console.log(JSON.stringify({ days: [after(0), after(6), after(8)], choice }));
"""
    names = "{ isMeasured, rememberTime, rememberedChoice }"
    told = script({"page/choice.js": names}, code)
    assert told == {"days": [[True, True], [True, True], [True, False]], "choice": "ort-wasm"}


@pytest.mark.slow
def test_a_result_of_the_page_is_read_by_the_report(vendor: Path, detector: Path, tmp_path: Path) -> None:
    measured = browser("measure", detector)
    (tmp_path / measured["name"]).write_text(json.dumps(measured["result"]))
    rows = measured["result"]["rows"]
    assert {(row["library"].split()[0], row["threads"]) for row in rows} >= {("onnxruntime-web", 1)}
    for row in rows:
        assert row["ms"]["runs"] >= 50
        assert 0 < row["ms"]["least"] <= row["ms"]["p50"] <= row["ms"]["p90"]
        assert row["golden"]["max_difference"] <= row["golden"]["tolerance"]
        assert row["device"]["user_agent"]
    assert report.main(["--html", str(tmp_path / "page.html"), "--results", str(tmp_path)]) == 0
    assert "ONNX Runtime Web" in (tmp_path / "page.html").read_text()


def row_of_a_page() -> dict[str, Any]:
    return {
        "label": "fscnn.onnx ort-wasm",
        "file": "fscnn.onnx",
        "runtime": "ONNX Runtime Web, WebAssembly",
        "library": "onnxruntime-web 1.30.0",
        "threads": 2,
        "golden": {"clips": 5, "max_difference": 3.4e-05, "tolerance": 1e-4},
        "device": {"manufacturer": None, "model": "Phone | 1", "chip": "arm"},
        "ms": {"p50": 12.3, "p90": 14.0, "least": 11.1, "runs": 100},
        "load_ms": 331.0,
        "first_run_ms": None,
        "steady": False,
    }


def test_the_report_tells_pages_from_other_runs() -> None:
    conditions = {"date": "2026-11-21T09:00:00+00:00", "protocol": {"where": "browser"}}
    table = result_tables.on_device(
        {"kind": "on-device", "conditions": conditions, "rows": [row_of_a_page()]}
    )
    line = table.splitlines()[2]
    assert line.startswith(
        "| Phone / 1 arm | fscnn.onnx | onnxruntime-web 1.30.0, ONNX Runtime Web, WebAssembly | 2 |"
    )
    assert "| 12 ms | 14 ms | 11 ms |  | 331 ms | 3e-05 | never steady |" in line
    assert "In a browser" in table
    del conditions["protocol"]
    assert "In a browser" not in result_tables.on_device(
        {"conditions": conditions, "rows": [row_of_a_page()]}
    )
