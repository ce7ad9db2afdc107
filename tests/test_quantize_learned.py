"""Training an encoder for its integers: what is trained is what runs, and it gets better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from antispoof.speechlike import speech_like_batch
from quantize import learned
from quantize.calibration import widened
from quantize.fake_integers import IntegerEncoder, Rounding, Spread, plain
from quantize.learned import Schedule, entry_values, find_encoders, learn, roundings_of
from quantize.onnx_graph import OnnxGraph
from quantize.recipes import parse_recipe
from quantize.scope import layers_in_scope
from quantize.static_int import Calibrated, Rewriter, calibrate, find_region
from tests.quantized_copies import FULL_RANGE

TOO_WIDE = 6.0
FAST = Schedule(updates=80, stretches=1, columns=729, step_rate=0.1)


@pytest.fixture(scope="module")
def source(one_second_model: Path) -> onnx.ModelProto:
    return onnx.load(one_second_model)


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return speech_like_batch(6, 16_000, seed=7)


@pytest.fixture(scope="module")
def calibrated(source: onnx.ModelProto, clips: np.ndarray) -> Calibrated:
    return calibrate(source, parse_recipe("w8a8-learned"), clips, "mse")


def test_a_step_is_learned_from_what_it_cuts_off_and_what_it_rounds() -> None:
    step, zero = 0.5, 100
    rounding = Rounding(torch.nn.Parameter(torch.tensor(step).log()), Spread(0, 255, zero))
    x = torch.tensor([[-60.0, -0.2, 0.3, 90.0]], requires_grad=True)  # the first and last are cut off
    assert rounding(x).tolist() == [[-zero * step, 0.0, 0.5, (255 - zero) * step]]
    rounding(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]
    # By the step: the ends move with it, and what is rounded by what it is rounded by, in steps.
    by_step = -zero + 0.4 + (1 - 0.6) + (255 - zero)
    assert rounding.log_step.grad is not None
    assert float(rounding.log_step.grad) == pytest.approx(by_step * step, rel=1e-4)
    assert rounding.zero.grad == -2 * step  # both ends move down when the zero goes up


def encoder_of(calibrated: Calibrated) -> tuple[IntegerEncoder, learned.Encoder]:
    graph = OnnxGraph(calibrated.model)
    region = find_region(graph, layers_in_scope(graph))
    (encoder,) = find_encoders(graph, region)
    rewriter = Rewriter(graph, calibrated.recipe, region, calibrated.grids, calibrated.largest)
    constants = {
        name: torch.from_numpy(np.array(graph.constants[name]))
        for node in encoder.nodes
        if node.op_type == "Conv"
        for name in node.input[1:]
    }
    roundings = roundings_of(encoder, region, rewriter)
    return IntegerEncoder(encoder.nodes, constants, roundings, calibrated.recipe.weight_limit), encoder


def mismatch(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((((found - wanted) ** 2).mean() / (wanted**2).mean()) ** 0.5)


@pytest.mark.parametrize("recipe", [pytest.param("w8a8-learned", marks=FULL_RANGE), "w8a8-rr-learned"])
def test_what_is_trained_is_what_runs(source: onnx.ModelProto, clips: np.ndarray, recipe: str) -> None:
    calibrated = calibrate(source, parse_recipe(recipe), clips, "mse")
    trained = learn(calibrated, clips, Schedule(updates=2, stretches=1, columns=729, weight_rate=1e-5))
    student, encoder = encoder_of(trained)
    with torch.no_grad():
        simulated = student(entry_values(trained.model, encoder.entry, clips[:2]), encoder.entry)
    file = trained.quantize()
    outside = OnnxGraph(trained.model).consumers(encoder.result)[0].output[0]
    reader = next(node for node in file.graph.node if outside in node.output)
    actual = entry_values(file, reader.input[0], clips[:2])
    with torch.no_grad():
        entry = entry_values(calibrated.model, encoder.entry, clips[:2])
        graph = OnnxGraph(calibrated.model)
        constants = {
            name: torch.from_numpy(np.array(value))
            for name, value in graph.constants.items()
            if value.dtype == np.float32
        }
        exact = plain(encoder.nodes, constants, entry, encoder.entry)[encoder.result]
    # The simulation shares its rounding with the file: what both lose is the same to a small part of it.
    assert mismatch(simulated[encoder.result], actual) < 0.3 * mismatch(actual, exact)


def test_training_brings_the_map_nearer(
    calibrated: Calibrated, clips: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[float] = []
    train = learned.train
    monkeypatch.setattr(learned, "train", lambda *args: errors.extend(train(*args)))
    # Ranges so wide that a few dozen updates must find better ones: 0.12 becomes 0.05.
    wide = {name: widened(grid, TOO_WIDE) for name, grid in calibrated.grids.items()}
    learn(replace(calibrated, grids=wide), clips, FAST)
    assert np.mean(errors[-5:]) < 0.6 * np.mean(errors[:3])


def test_the_same_clips_and_seed_give_the_same_file(calibrated: Calibrated, clips: np.ndarray) -> None:
    schedule = Schedule(updates=3, stretches=1, columns=729)
    one, two = (learn(calibrated, clips, schedule).quantize().SerializeToString() for _ in range(2))
    assert one == two


def test_tensors_that_are_added_share_their_step(calibrated: Calibrated, clips: np.ndarray) -> None:
    trained = learn(calibrated, clips, Schedule(updates=1, stretches=1, columns=729))
    graph = OnnxGraph(trained.model)
    sums = [node for node in graph.nodes if node.op_type == "Add" and set(node.input) <= set(trained.grids)]
    assert sums
    for node in sums:
        pooled = graph.consumers(node.output[0])[0].output[0]
        scales = {trained.grids[name].scale for name in (*node.input, pooled)}
        assert max(scales) - min(scales) <= 1e-6 * max(scales)
