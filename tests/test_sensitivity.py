"""The search for layers to leave in float: its order, its front, and that an interruption loses nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError
from antispoof.speechlike import speech_like_batch
from quantize import sensitivity
from quantize.calibration import widened
from quantize.layer_search import Bench, Limits, Material, Point, State, key_of, pareto, search
from quantize.recipes import parse_recipe
from quantize.static_int import Calibrated, calibrate
from tests.manifests import write_manifest

CLIPS = 4


def point(layers: str, size: int, time: float, rms: float) -> Point:
    return Point(tuple(layers.split()), size, time, 100 * time, rms, rms, rms, None)


def test_the_front_leaves_out_what_another_beats_in_everything() -> None:
    a, b, c = point("a", 10, 0.5, 0.3), point("b", 10, 0.6, 0.2), point("c", 11, 0.7, 0.2)
    assert pareto([c, b, a]) == [a, b]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with a front end and three layers, wide enough to be faster in integers."""
    random = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)

    nodes = [
        helper.make_node("Unsqueeze", ["waveform", "one"], ["row"]),
        helper.make_node("Conv", ["row", "filters"], ["bands"], strides=[8]),
        helper.make_node("Abs", ["bands"], ["levels"]),
        helper.make_node("Conv", ["levels", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "third"], ["e"]),
        helper.make_node("ReduceMean", ["e", "axes"], ["score"], keepdims=0),
    ]
    constants = {
        "one": np.array([1]),
        "axes": np.array([1, 2]),
        "filters": weights(16, 1, 64),
        "first": weights(64, 16, 5),
        "second": weights(64, 64, 5),
        "third": weights(8, 64, 5),
    }
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    waveform = helper.make_tensor_value_info("waveform", onnx.TensorProto.FLOAT, [1, SAMPLE_RATE])
    score = helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "three-layers", [waveform], [score], stored)
    path = tmp_path_factory.mktemp("network") / "three-layers.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return write_manifest(path, SAMPLE_RATE, "three-layers")


@pytest.fixture(scope="module")
def problem(network: Path) -> tuple[Calibrated, onnx.ModelProto, Material]:
    model = onnx.load(network)
    clips = speech_like_batch(CLIPS, SAMPLE_RATE, seed=3)
    return (
        calibrate(model, parse_recipe("w8a8"), clips, "mse"),
        model,
        sensitivity.material_of(model, clips, None),
    )


def test_an_interrupted_search_goes_on_and_a_repeated_one_measures_nothing(
    problem: tuple[Calibrated, onnx.ModelProto, Material], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated, model, material = problem
    measure = Bench.measure
    measured: list[tuple[str, ...]] = []

    def interrupted(self: Bench, layers: tuple[str, ...]) -> Point:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(layers)
        return measure(self, layers)

    state, key = tmp_path / "state.json", key_of(calibrated, material)
    monkeypatch.setattr(Bench, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(calibrated, model, material, State(state, key), Limits(np.inf))
    assert len(json.loads(state.read_text())["points"]) == 3

    again: list[tuple[str, ...]] = []

    def counted(self: Bench, layers: tuple[str, ...]) -> Point:
        again.append(layers)
        return measure(self, layers)

    monkeypatch.setattr(Bench, "measure", counted)
    found = search(calibrated, model, material, State(state, key), Limits(np.inf))
    assert not set(measured) & set(again)
    assert len(again) == len(set(again))
    again.clear()
    assert search(calibrated, model, material, State(state, key), Limits(np.inf)) == found
    assert again == []
    assert found.chosen in found.front
    assert found.chosen.rms <= found.none.rms
    with pytest.raises(UserError, match="--force"):
        State(state, "another key")


def test_a_layer_in_float_is_exact_and_all_of_them_are_the_float_file(
    problem: tuple[Calibrated, onnx.ModelProto, Material],
) -> None:
    calibrated, model, material = problem
    # Steps so wide that integers between the layers lose much.
    coarse = replace(calibrated, grids={name: widened(grid, 32.0) for name, grid in calibrated.grids.items()})
    bench, coarse_bench = Bench(calibrated, model, material), Bench(coarse, model, material)
    names = tuple(sensitivity.names_of(model))
    none, every = coarse_bench.measure(()), coarse_bench.measure(names)
    # Its weights are still integers, which loses little: see w8 in benchmarks/results/README.md.
    assert every.rms < 0.3 * none.rms
    assert every.time > none.time
    # What is in float does not feel the steps.
    assert bench.measure(names).rms == pytest.approx(every.rms, rel=1e-3)


def test_the_command_writes_its_answer_and_auto_uses_it(
    network: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from quantize import calibration, onnx_int8

    monkeypatch.setattr(calibration, "GENERATED_CLIPS", CLIPS)
    assert onnx_int8.main([str(network), "--recipe", "auto", "--out", str(tmp_path)]) == 0
    answer = json.loads((tmp_path / "three-layers.w8a8-rr-auto.front.json").read_text())
    assert answer["chosen"] in answer["front"]
    assert "(chosen)" in capsys.readouterr().err
    graph = onnx.load(tmp_path / "three-layers.w8a8-rr-auto.onnx").graph
    left = {f"{name}.restored" for name in answer["chosen"]["layers"]}
    floats = {node.input[1] for node in graph.node if node.op_type == "Conv" and "restored" in node.input[1]}
    assert floats == left
    assert np.isfinite(answer["chosen"]["rms"])
