"""The command measures real files, compares them, and tells mistakes before anything runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antispoof.errors import UserError
from antispoof.manifest import describe_file
from benchmarks import latency
from benchmarks.results_file import read_results
from benchmarks.timing import latency_rows
from benchmarks.timing.ratios import SAME, SLOWER
from benchmarks.timing.worker_handle import Artifact
from tests.latency.timed_models import LAYERS, SAMPLES, write_model
from tests.manifests import write_manifest


def write_exported(path: Path) -> Path:
    """A timed model as an exporter would leave it: with a manifest."""
    write_model(path)
    return write_manifest(path, SAMPLES)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results file of one real measurement that several tests look at."""
    folder = tmp_path_factory.mktemp("artifacts")
    (folder / "broken.onnx").write_bytes(b"no model")
    base, twice = write_exported(folder / "base.onnx"), write_model(folder / "b.onnx", 2 * LAYERS)
    out = folder / "out.json"
    artifacts = [str(base), str(folder / "broken.onnx"), f"twice={twice}"]
    assert latency.main([*artifacts, "--repeats", "40", "--json", str(out)]) == 1  # for the broken one
    return out


def rows_of(results: Path) -> list[dict[str, Any]]:
    return read_results(results, "latency")["rows"]


def test_command_measures_real_files(results: Path) -> None:
    content = read_results(results, "latency")
    base, broken, twice = content["rows"]
    assert [row["label"] for row in content["rows"]] == ["base", "broken", "twice"]
    assert base["manifest"]
    assert not twice["manifest"]
    assert base["sha256"] == describe_file(results.parent / "base.onnx").sha256
    assert base["rounds"] == twice["rounds"] == 40
    assert base["warm_up"]["runs"] >= 10
    for row in (base, twice):
        assert 0 < row["cpu_ms"]["p50_low"] <= row["cpu_ms"]["p50"] <= row["cpu_ms"]["p90"]
        assert row["cpu_ms"]["p50"] <= 1.05 * row["wall_ms"]["p50"]  # one thread, so no more than the clock
        assert len(row["times_ms"]) == 40
        assert np.median(row["times_ms"]) == pytest.approx(row["cpu_ms"]["p50"], rel=1e-3)  # four digits
        assert row["real_time_factor"]["window"] == pytest.approx(
            1e-3 * row["cpu_ms"]["p50"]
        )  # a clip of 1 s
        assert row["real_time_factor"]["hop"] == pytest.approx(2 * row["real_time_factor"]["window"])
    assert "not an ONNX model" in broken["failed"]
    assert "ratio" not in broken
    assert "ratio" not in base
    assert twice["ratio"]["base"] == "base"
    assert twice["verdict"] == SLOWER
    assert content["conditions"]["threads"] == [1]
    assert str(results.parent) not in results.read_text()
    assert f'"times_ms": {base["times_ms"]}' in results.read_text()  # on one line


def test_table_names_failures_and_missing_manifests(results: Path) -> None:
    text = latency_rows.table(rows_of(results))
    assert "twice (no manifest)" in text
    assert "failed: broken.onnx: not an ONNX model" in text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_is_what_the_model_adds(results: Path) -> None:
    row = rows_of(results)[0]
    # Its weights are 0.24 MiB and its activations 0.06; ONNX Runtime's session costs a few MiB.
    assert 0 < row["memory_mib"]["loaded"] <= row["memory_mib"]["peak"] < 64


def test_results_are_not_overwritten_unasked(results: Path) -> None:
    with pytest.raises(UserError, match="--force"):
        latency.main([str(results.parent / "base.onnx"), "--json", str(results)])


def test_against_compares_ratios_to_the_same_base_only(results: Path) -> None:
    rows, earlier = rows_of(results), read_results(results, "latency")
    base = Artifact("base", results.parent / "base.onnx")
    twice = Artifact("twice", results.parent / "b.onnx")
    then = latency_rows.comparable(earlier, [base, twice], [1, 2], "out.json")
    assert list(then) == [("twice", 1)]
    latency_rows.add_changes(rows, then, "out.json", same_cpu=True)
    change = {"source": "out.json", "same_file": True, "same_cpu": True, "change": 1.0, "verdict": SAME}
    assert rows[2]["against"] == change
    assert "against" not in rows[0]
    assert "1.000 times its earlier ratio (same file): no sign" in latency_rows.table(rows)
    others = [Artifact("base", twice.path), Artifact("another", base.path)]
    for artifacts in ([others[0], twice], [others[1], twice], [base, others[1]], [base]):
        with pytest.raises(UserError, match="only ratios to the same file"):
            latency_rows.comparable(earlier, artifacts, [1], "out.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("conditions"),
        lambda content: content["conditions"].pop("cpu"),
        lambda content: content["rows"][2].pop("sha256"),
        lambda content: content["rows"][2]["ratio"].pop("cpu"),
        lambda content: content["rows"][2]["ratio"]["cpu"].pop("low"),
        lambda content: content["rows"][2]["ratio"]["cpu"].update(low="1"),
        lambda content: content["rows"][2]["ratio"]["cpu"].update(estimate=0),
        lambda content: content["rows"][2].update(ratio=1.0),
        lambda content: content["rows"][2].update(label=[]),
    ],
)
def test_damaged_earlier_results_get_one_line_before_anything_runs(
    damage: Callable[[dict[str, Any]], object],
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = json.loads(results.read_text())
    damage(content)
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(content))
    monkeypatch.setattr(latency, "measure", lambda *_, **__: pytest.fail("measured before"))
    files = [str(results.parent / "base.onnx"), f"twice={results.parent / 'b.onnx'}"]
    with pytest.raises(UserError, match=r"earlier\.json: damaged, or of another version") as error:
        latency.main([*files, "--against", str(earlier)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.onnx"], "no such model file"),
        (["{a}", "{a}"], "NAME=FILE"),
        (["{text}"], "not a model file"),
        (["{a}", "--threads", "0"], "--threads"),
        (["{a}", "--threads", "1,,2"], "--threads"),
        (["{a}", "--repeats", "0"], "--repeats"),
        (["{a}", "--hop", "nan"], "--hop"),
        (["{a}", "--seconds", "inf"], "--seconds"),  # which JSON cannot hold
        (["{a}", "--model", "aasist-l"], "--model is for checkpoints"),
        (["{a}", "--against", "{text}"], "not JSON"),
    ],
)
def test_mistakes_are_told_before_anything_runs(tmp_path: Path, arguments: list[str], message: str) -> None:
    names = {"a": str(write_model(tmp_path / "a.onnx", 1)), "text": str(tmp_path / "text.txt")}
    Path(names["text"]).write_text("no JSON")
    with pytest.raises(UserError, match=message):
        latency.main([argument.format(**names) for argument in arguments])


def test_files_of_one_stem_go_by_their_whole_names(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.onnx", "a.tflite", "b.onnx")]
    for path in files:
        path.touch()
    artifacts = latency.parse_artifacts([*map(str, files), f"a={files[2]}"], None)
    assert [artifact.label for artifact in artifacts] == ["a.onnx", "a.tflite", "b", "a"]
