"""The search for layers to leave in float: its order, its front, and that an interruption loses nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from antispoof.errors import UserError
from antispoof.speechlike import speech_like_batch
from quantize import layer_search, sensitivity
from quantize.calibration import widened
from quantize.layer_search import Bench, Material, Point, State, key_of, pareto, search
from quantize.recipes import parse_recipe
from quantize.static_int import Calibrated, calibrate

CLIPS = 4


def point(layers: str, size: int, time: float, rms: float) -> Point:
    return Point(tuple(layers.split()), size, time, 100 * time, rms, rms, rms, None)


def test_the_front_leaves_out_what_another_beats_in_everything() -> None:
    a, b, c = point("a", 10, 0.5, 0.3), point("b", 10, 0.6, 0.2), point("c", 11, 0.7, 0.2)
    assert pareto([c, b, a]) == [a, b]


@pytest.fixture(scope="module")
def problem(one_second_model: Path) -> tuple[Calibrated, onnx.ModelProto, Material]:
    model = onnx.load(one_second_model)
    clips = speech_like_batch(CLIPS, 16_000, seed=3)
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
        search(calibrated, model, material, State(state, key), most_time=1.0)
    assert len(json.loads(state.read_text())["points"]) == 3

    again: list[tuple[str, ...]] = []

    def counted(self: Bench, layers: tuple[str, ...]) -> Point:
        again.append(layers)
        return measure(self, layers)

    monkeypatch.setattr(Bench, "measure", counted)
    found = search(calibrated, model, material, State(state, key), most_time=1.0)
    assert not set(measured) & set(again)
    assert len(again) == len(set(again))
    again.clear()
    assert search(calibrated, model, material, State(state, key), most_time=1.0) == found
    assert again == []
    assert found.chosen in found.front
    assert found.chosen.rms <= found.none.rms
    with pytest.raises(UserError, match="--force"):
        State(state, "another key")


def test_a_layer_in_float_is_exact_and_all_of_them_are_the_float_file(
    problem: tuple[Calibrated, onnx.ModelProto, Material], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated, model, material = problem
    monkeypatch.setattr(layer_search, "ROUNDS", 1)
    # Steps so wide that integers between the layers lose much.
    coarse = replace(calibrated, grids={name: widened(grid, 4.0) for name, grid in calibrated.grids.items()})
    bench, coarse_bench = Bench(calibrated, model, material), Bench(coarse, model, material)
    names = tuple(sensitivity.names_of(model))
    none, every = coarse_bench.measure(()), coarse_bench.measure(names)
    # Its weights are still integers, which loses little: see w8 in benchmarks/results/README.md.
    assert every.rms < 0.3 * none.rms
    assert every.time > none.time
    # What is in float does not feel the steps.
    assert bench.measure(names).rms == pytest.approx(every.rms, rel=1e-3)


def test_the_command_writes_its_answer_and_auto_uses_it(
    one_second_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from quantize import calibration, onnx_int8

    monkeypatch.setattr(calibration, "GENERATED_CLIPS", CLIPS)
    monkeypatch.setattr(layer_search, "ROUNDS", 1)
    assert onnx_int8.main([str(one_second_model), "--recipe", "auto", "--out", str(tmp_path)]) == 0
    answer = json.loads((tmp_path / "aasist-l.w8a8-rr-auto.front.json").read_text())
    assert answer["chosen"] in answer["front"]
    assert "(chosen)" in capsys.readouterr().err
    graph = onnx.load(tmp_path / "aasist-l.w8a8-rr-auto.onnx").graph
    left = {f"{name}.restored" for name in answer["chosen"]["layers"]}
    floats = {node.input[1] for node in graph.node if node.op_type == "Conv" and "restored" in node.input[1]}
    assert floats == left
    assert np.isfinite(answer["chosen"]["rms"])
