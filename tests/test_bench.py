"""The bench of one model: which file it recommends and why, what it calls a regression, and a whole run."""

from __future__ import annotations

import json
import operator
import os
import time
from pathlib import Path

import numpy as np
import pytest

from antispoof.errors import UserError
from benchmarks import bench, gpu, throughput
from benchmarks.results_file import read_results
from benchmarks.shipping import Candidate, Scores, choose, compare, regression_lines, sentences
from benchmarks.timing.isolated import StepFailed, isolated

ROUNDS = 60


def times(milliseconds: float, seed: int = 0, noise: float = 0.01) -> tuple[float, ...]:
    """Times of rounds that are slow and fast together, as on a shared machine."""
    rounds = np.random.default_rng(0).lognormal(0, 0.2, ROUNDS)
    own = np.random.default_rng(seed + 1).lognormal(0, noise, ROUNDS)
    return tuple(milliseconds / 1e3 * rounds * own)


def candidate(label: str, format: str, milliseconds: float, **more: object) -> Candidate:
    facts: dict[str, object] = {"kib": 400.0, "peak_mib": 200.0, "trusted": True, "accuracy": "exact"}
    facts |= more
    return Candidate(label, format, times=times(milliseconds, seed=len(label)), **facts)  # type: ignore[arg-type]


def test_each_target_gets_the_fastest_file_that_runs_there() -> None:
    files = [
        candidate("pytorch", "torch", 200),
        candidate("onnx", "onnx", 100),
        candidate("tflite", "tflite", 70),
    ]
    for platform, label in (("Android", "tflite"), ("browsers", "onnx"), ("Linux", "tflite")):
        chosen = choose(files, platform)
        assert chosen is not None
        assert chosen[0].label == label
    lines = sentences(files, "pytorch")
    assert lines[0].startswith("servers and desktops, Android, iOS: tflite: ")
    assert "0.35 of PyTorch's" in lines[0]
    assert lines[1].startswith("browsers: onnx: ")


def test_pytorch_itself_is_never_shipped_even_where_it_is_fastest() -> None:
    files = [candidate("pytorch", "torch", 50), candidate("onnx", "onnx", 100)]
    chosen = choose(files, "Linux")
    assert chosen is not None
    assert chosen[0].label == "onnx"


def test_a_file_whose_scores_are_not_trusted_is_refused_with_its_reason() -> None:
    files = [
        candidate("onnx", "onnx", 100),
        candidate("int8", "onnx", 50, trusted=False, accuracy="UNDERPOWERED, 200 trials only"),
    ]
    chosen = choose(files, "Android")
    assert chosen is not None
    assert chosen[0].label == "onnx"
    assert "Not int8: UNDERPOWERED, 200 trials only." in sentences(files, "pytorch")


def test_among_equally_fast_files_memory_decides_and_a_trifle_of_it_does_not() -> None:
    onnx, tiles = candidate("onnx", "onnx", 100), candidate("tiles", "onnx", 101, peak_mib=110.0)
    chosen = choose([onnx, tiles], "Linux")
    assert chosen is not None
    assert chosen[0].label == "tiles"
    assert [one.label for one in chosen[1]] == ["onnx"]
    chosen = choose([onnx, candidate("tiles", "onnx", 101, peak_mib=199.0)], "Linux")
    assert chosen is not None
    assert chosen[0].label == "onnx"


def test_where_nothing_may_be_shipped_it_says_so() -> None:
    lines = sentences([candidate("onnx", "onnx", 100, trusted=False, accuracy="wrong")], "pytorch")
    assert lines == ["servers and desktops, Android, iOS, browsers: none of the files.", "Not onnx: wrong."]


def test_a_core_ml_package_is_named_though_nothing_can_time_it_here() -> None:
    package = Candidate("coreml", "coreml", 400.0, (), None, True, "checked when made")
    (ios,) = [line for line in sentences([candidate("onnx", "onnx", 9), package], "") if "iOS" in line]
    assert "coreml is made and checked" in ios
    assert not any("coreml" in line for line in sentences([package], "") if line.startswith("Android"))


def scores(shift: float) -> Scores:
    random = np.random.default_rng(0)
    genuine = np.arange(600) < 300
    old = random.normal(np.where(genuine, 1.0, -1.0), 1.0)
    worse = np.where(np.arange(600) % 2, shift, 0.0)
    return Scores(old - worse * np.where(genuine, 1, -1), old, genuine)


def test_planted_regressions_are_found_and_noise_is_not() -> None:
    old = candidate("onnx", "onnx", 100)
    same = compare(candidate("onnx8", "onnx", 100), old, scores(0.0))
    assert same.regressions == []
    slower = compare(candidate("onnx8", "onnx", 110), old, None)
    assert len(slower.regressions) == 1
    assert slower.regressions[0].startswith("1.1")
    assert compare(candidate("onnx8", "onnx", 102), old, None).regressions == []
    worse = compare(candidate("onnx8", "onnx", 100), old, scores(1.0))
    assert [text.startswith("EER +") for text in worse.regressions] == [True]
    fat = compare(candidate("onnx8", "onnx", 100, kib=500.0, peak_mib=300.0), old, None)
    assert fat.regressions == ["1.25 times the size", "1.50 times the memory"]
    assert regression_lines({"a": same}) == ["No regression outside the noise."]
    assert regression_lines({"a": same, "b": fat})[0].startswith("Regression in b: 1.25 times the size; ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["no-such-model"], "no file and no model"),
        (["aasist-l", "--audio", "."], "go together"),
        (["aasist-l", "--trials", "1"], "--trials takes at least 2"),
        (["aasist-l", "--against", "."], "holds no bench.json"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bench.main([*flags, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UserError, match="holds files already"):
        bench.main(["aasist-l", "--out", str(tmp_path)])


def test_a_file_that_is_the_same_as_another_is_not_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"onnx": tmp_path / "onnx.onnx", "onnx-8-tiles": tmp_path / "tiles.onnx", "tflite": tmp_path / "t"}
    for path, content in zip(made.values(), (b"network", b"network", b"another"), strict=True):
        path.write_bytes(content)
    assert list(bench.distinct(made)) == ["onnx", "tflite"]
    assert "onnx-8-tiles: the same file as onnx, left out" in capsys.readouterr().err


def test_a_step_of_its_own_returns_or_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    assert isolated(operator.mul, 6, 7, seconds=60) == 42
    isolated(print, "what libraries print", seconds=60)
    assert capfd.readouterr().out == ""
    with pytest.raises(StepFailed, match="SIGABRT"):
        isolated(os.abort, seconds=60)
    with pytest.raises(StepFailed, match="ValueError: invalid literal"):
        isolated(int, "a\nb", seconds=60)
    with pytest.raises(StepFailed, match=r"no result within 0\.1 s"):
        isolated(time.sleep, 60, seconds=0.1)


def test_without_a_gpu_nothing_is_measured() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UserError, match="no GPU"):
        gpu.main([])


def test_a_time_that_results_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--seconds a finite number"):
        bench.main(["fscnn", "--out", str(tmp_path / "out"), "--seconds", "inf"])


@pytest.mark.slow
def test_a_whole_bench_and_another_against_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    flags = ["fscnn", "--checkpoint", "random", "--repeats", "10", "--seconds", "5"]
    for label in ("coreml", "tflite", "onnx-8-tiles"):
        flags += ["--skip", label]
    assert bench.main([*flags, "--out", str(first)]) == 0
    shown = capsys.readouterr().out
    assert "servers and desktops, Android, iOS, browsers: onnx: " in shown
    assert "Not onnx.w8a8-mixed: " in shown
    assert "<!doctype html>" in (first / "bench.html").read_text()
    bench.main([*flags, "--skip", "onnx.w8a8-mixed", "--out", str(second), "--against", str(first)])
    rows = {row["label"]: row for row in read_results(second / "bench.json", "bench")["rows"]}
    assert set(rows) == {"pytorch", "onnx", "old-onnx"}
    assert rows["onnx"]["sha256"] == rows["old-onnx"]["sha256"]
    assert rows["onnx"]["change"]["size"] == 1


# What score.py's threads and decoders may take of a clip; on shared cores only processor time says so.
LEAST_SHARE = 0.9


@pytest.mark.slow
def test_files_are_scored_nearly_as_fast_as_the_bare_runtime(exported_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "throughput.json"
    assert throughput.main([str(exported_model), "--rounds", "6", "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["share"]["cpu"]["estimate"] > LEAST_SHARE
