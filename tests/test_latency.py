"""The latency harness: finds differences that are there, and none that are not; survives what it times."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from antispoof.checkpoint import save_checkpoint
from antispoof.errors import UserError
from antispoof.manifest import Input, Manifest, Output, describe_file, manifest_path
from antispoof.models import create_model
from benchmarks import latency, latency_rows
from benchmarks.conditions import gather_conditions, read_results, write_results
from benchmarks.harness import judged, measure, order_of_round
from benchmarks.ratios import (
    FASTER,
    SAME,
    SLOWER,
    Interval,
    kept_times,
    median_interval,
    percentiles,
    ratio_interval,
    verdict,
    verdict_of_change,
)
from benchmarks.subjects import open_subject
from benchmarks.worker_handle import Artifact, Worker, WorkerFailed

SAMPLES, WIDTH = 16_000, 250
LAYERS = 50
TIME_OUT_S = 60.0
# The same file in two processes, on a machine shared with others (see MIN_EFFECT for the quiet case).
SAME_FILE_TOLERANCE = 0.05


def model_bytes(layers: int) -> bytes:
    """An ONNX model whose time is proportional to ``layers``: a chain of equal products, 8 MFLOP each."""
    rotation = np.eye(WIDTH)[np.random.default_rng(0).permutation(WIDTH)]  # keeps the level
    constants = {
        "rotation": rotation.astype(np.float32),
        "rows": np.array([-1, WIDTH]),
        "row": np.array([1, -1]),
        "axis": np.array([1]),
    }
    nodes = [helper.make_node("Reshape", ["waveform", "rows"], ["x0"])]
    nodes += [helper.make_node("MatMul", [f"x{i}", "rotation"], [f"x{i + 1}"]) for i in range(layers)]
    nodes += [
        helper.make_node("Reshape", [f"x{layers}", "row"], ["flat"]),
        helper.make_node("ReduceMean", ["flat", "axis"], ["score"], keepdims=0),
    ]
    return serialize(nodes, constants)


def endless_model_bytes() -> bytes:
    """An ONNX model that does not return within the lifetime of this test suite."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still_going"]),
            helper.make_node("Sin", ["x"], ["y"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still_going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["turns", "", "waveform"], ["end"], body=body),
        helper.make_node("ReduceMean", ["end", "axis"], ["score"], keepdims=0),
    ]
    return serialize(nodes, {"turns": np.array(2**62), "axis": np.array([1])})


def serialize(nodes: list[Any], constants: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "timed",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, SAMPLES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_model(path: Path, layers: int = LAYERS) -> Path:
    path.write_bytes(model_bytes(layers))
    return path


def write_exported(path: Path) -> Path:
    """The same, as an exporter would leave it: with a manifest."""
    write_model(path)
    manifest = Manifest(
        model="aasist-l",
        config={},
        weights_sha256="0" * 64,
        weights="none",
        format="onnx",
        precision="float32",
        recipe="none",
        input=Input("waveform", 1, SAMPLES),
        output=Output("score"),
        licence="MIT",
        tools={},
        file=describe_file(path),
    )
    manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
    return path


def noisy_rounds(generator: np.random.Generator, rounds: int, *factors: float) -> list[np.ndarray]:
    """Times of several programs on a busy machine: phases that slow all of them, and outliers of each."""
    phases = np.repeat(generator.uniform(1, 3, rounds // 10 + 1), 10)[:rounds]
    single = generator.lognormal(0, 0.03, (len(factors), rounds))
    spikes = np.where(generator.random(single.shape) < 0.05, generator.uniform(1, 4, single.shape), 1.0)
    return [factor * phases * noise for factor, noise in zip(factors, single * spikes, strict=True)]


def test_verdict_finds_ten_percent_and_never_two_on_a_noisy_machine() -> None:
    for seed in range(60):
        base, same, two, ten = noisy_rounds(np.random.default_rng(seed), 200, 1.0, 1.0, 1.02, 1.1)
        assert verdict(ratio_interval(ten, base)) == SLOWER, seed
        assert verdict(ratio_interval(base, ten)) == FASTER, seed
        assert verdict(ratio_interval(same, base)) == SAME, seed
        assert verdict(ratio_interval(two, base)) == SAME, seed


def test_interval_of_the_ratio_covers_the_truth_as_often_as_it_says() -> None:
    intervals = []
    for seed in range(200):
        base, other = noisy_rounds(np.random.default_rng(1000 + seed), 60, 1.0, 1.1)
        intervals.append(ratio_interval(other, base, draws=300))
    covered = np.mean([interval.low <= 1.1 <= interval.high for interval in intervals])
    # 0.95 is promised; three standard errors of 200 trials are 0.05, and the bootstrap is slightly short.
    assert covered >= 0.88


@pytest.mark.parametrize(
    ("estimate", "low", "high", "word"),
    [
        (1.10, 1.05, 1.15, SLOWER),
        (0.90, 0.85, 0.95, FASTER),
        (1.10, 0.99, 1.20, SAME),  # perhaps none
        (1.10, 1.02, 1.20, SAME),  # perhaps too small
        (1.02, 1.01, 1.03, SAME),  # certainly too small
        (0.975, 0.97, 0.98, SAME),
    ],
)
def test_verdict_needs_certainty_and_size(estimate: float, low: float, high: float, word: str) -> None:
    assert verdict(Interval(estimate, low, high, 0.95, 1000, 0)) == word


def test_change_between_measurements_needs_intervals_apart() -> None:
    then = Interval(1.0, 0.98, 1.02, 0.95, 1000, 0)
    assert verdict_of_change(Interval(1.1, 1.06, 1.14, 0.95, 1000, 0), then) == SLOWER
    assert verdict_of_change(Interval(0.9, 0.88, 0.92, 0.95, 1000, 0), then) == FASTER
    assert verdict_of_change(Interval(1.1, 1.04, 1.2, 0.95, 1000, 0), then) == SAME


def test_at_most_two_hundred_times_are_kept_from_first_to_last() -> None:
    assert kept_times([1.23456, 2.0]) == [1.235, 2.0]
    assert kept_times([7.0]) == [7.0]
    kept = kept_times(np.arange(1001.0))
    assert (len(kept), kept[:3], kept[-1]) == (200, [0.0, 5.0, 10.0], 1000.0)


def test_percentiles_leave_out_a_p99_that_nothing_supports() -> None:
    assert percentiles(np.arange(101)) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert percentiles([1.0, 2.0, 3.0])["p99"] is None
    interval = median_interval(np.arange(101))
    assert interval.low < interval.estimate == 50 < interval.high


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_order_gives_every_artifact_every_place_and_every_predecessor(count: int) -> None:
    orders = [order_of_round(index, count) for index in range(2 * count)]
    for place in range(count):
        assert sorted(order[place] for order in orders) == sorted([*range(count)] * 2)
    pairs = {pair for order in orders for pair in pairwise(order)}
    assert all((b, a) in pairs for a, b in pairs)


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


def test_checkpoint_is_timed_in_eager_mode(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(create_model("aasist-l"), path)
    subject = open_subject(path, threads=2, model="aasist-l")
    assert subject.facts == {"format": "torch", "manifest": False}
    assert subject.run(np.zeros(subject.shape, np.float32)).shape == (1,)


def test_hung_worker_is_given_up_and_ended(tmp_path: Path) -> None:
    path = tmp_path / "endless.onnx"
    path.write_bytes(endless_model_bytes())
    with (
        Worker(Artifact("endless", path), 1, time_out=4) as worker,
        pytest.raises(WorkerFailed, match="no answer within 4 s"),
    ):
        worker.ready()
    assert worker.process.returncode == -signal.SIGKILL


def test_killed_worker_says_so_and_is_gone(tmp_path: Path) -> None:
    with Worker(Artifact("a", write_model(tmp_path / "a.onnx", 2)), 1, TIME_OUT_S) as worker:
        assert worker.ready()["facts"]["format"] == "onnx"
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        with pytest.raises(WorkerFailed, match="killed by SIGKILL, perhaps for want of memory"):
            worker.run(0)
    assert worker.process.returncode == -signal.SIGKILL


def test_interrupt_ends_the_command_and_its_workers(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.onnx", 2)
    command = [sys.executable, "-m", "benchmarks.latency", str(path), "--repeats", "1000000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "warming up" not in process.stderr.readline():
        assert process.poll() is None
    workers = children(process.pid)
    assert workers
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip().endswith("interrupted")
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def children(pid: int) -> list[int]:
    """The processes that a process started, where the system tells."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("needs the list of a process's children in /proc")
    return [int(child) for child in path.read_text().split()]


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
        (["{a}", "--model", "aasist-l"], "--model is for checkpoints"),
        (["{a}", "--against", "{text}"], "not JSON"),
    ],
)
def test_mistakes_are_told_before_anything_runs(tmp_path: Path, arguments: list[str], message: str) -> None:
    names = {"a": str(write_model(tmp_path / "a.onnx", 1)), "text": str(tmp_path / "text.txt")}
    Path(names["text"]).write_text("no JSON")
    with pytest.raises(UserError, match=message):
        latency.main([argument.format(**names) for argument in arguments])


def test_foreign_shapes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["speech"], ["score"])]
    path = tmp_path / "foreign.onnx"

    def shape_of(shape: list[Any], kind: int = TensorProto.FLOAT) -> tuple[int, ...]:
        values = [helper.make_tensor_value_info(name, kind, shape) for name in ("speech", "score")]
        graph = helper.make_graph(nodes, "foreign", values[:1], values[1:])
        opset = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
        return open_subject(path, threads=1).shape

    assert shape_of(["batch", "time"]) == (1, 64_600)
    assert shape_of([2, 1, 8_000]) == (2, 1, 8_000)
    assert shape_of(["time"]) == (64_600,)
    with pytest.raises(UserError, match="not one float32 waveform"):
        shape_of([1, 8_000], TensorProto.DOUBLE)


def test_judged_by_processor_time_only_where_one_thread_computes() -> None:
    assert judged([(3.0, 1.0)], threads=1) == [1.0]
    assert judged([(3.0, 5.0)], threads=2) == [3.0]


def test_conditions_name_no_machine_and_no_folder() -> None:
    conditions = gather_conditions((1, 2))
    assert conditions["threads"] == [1, 2]
    assert conditions["cpu"]["cores"] >= 1
    assert {"antispoof", "torch", "numpy"} <= conditions["packages"].keys()
    text = json.dumps(conditions, allow_nan=False)
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert str(Path(__file__).parents[1]) not in text
    assert platform.node() not in text.split('"')


def test_results_are_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "results" / "a.json"
    with pytest.raises(ValueError, match="JSON"):
        write_results(path, "k", {}, [{"value": float("nan")}])
    assert not path.exists()
    write_results(path, "k", {"a": 1}, [{"b": 2}])
    assert read_results(path, "k") == {"schema": 1, "kind": "k", "conditions": {"a": 1}, "rows": [{"b": 2}]}
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="--force"):
        write_results(path, "k", {}, [])
    write_results(path, "k", {}, [], force=True)
    with pytest.raises(UserError, match="no latency results"):
        read_results(path, "latency")


@pytest.mark.slow
def test_planted_slowdowns_under_load(tmp_path: Path) -> None:
    """The same file twice within 5 %, ten percent found, two percent not, while another program computes."""
    layers = {"base": 100, "same": 100, "two": 102, "ten": 110}
    artifacts = [
        Artifact(name, write_model(tmp_path / f"{name}.onnx", count)) for name, count in layers.items()
    ]
    done = threading.Event()
    load = threading.Thread(target=_disturb, args=(done,))
    load.start()
    try:
        session = measure(artifacts, threads=1, repeats=400, seconds=120, time_out=TIME_OUT_S)
    finally:
        done.set()
        load.join()
    _, same, two, ten = latency_rows.rows_of(session, hop_s=0.5)
    assert same["ratio"]["cpu"]["estimate"] == pytest.approx(1, abs=SAME_FILE_TOLERANCE)
    assert ten["verdict"] == SLOWER
    assert two["verdict"] == same["verdict"] == SAME


def _disturb(done: threading.Event) -> None:
    """Keeps one more core busy, on and off, until told to stop."""
    while not done.is_set():
        process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        done.wait(3)
        process.kill()
        process.wait()
        time.sleep(1)
