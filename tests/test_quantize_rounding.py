"""What rounding to integers must not break in a graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from antispoof.speechlike import speech_like_batch
from quantize.recipes import parse_recipe
from quantize.static_int import calibrate
from runtimes.ort import open_session
from tests.quantized_copies import FULL_RANGE


def convolutions_around_an_elu(size: float) -> onnx.ModelProto:
    """A graph whose ELU reads values as large as ``size``."""
    random = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)

    nodes = [
        helper.make_node("Unsqueeze", ["waveform", "one"], ["row"]),
        helper.make_node("Conv", ["row", "first"], ["filtered"], strides=[8]),
        helper.make_node("Tanh", ["filtered"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "size"], ["sized"]),
        helper.make_node("Conv", ["sized", "second"], ["before"]),
        helper.make_node("Elu", ["before"], ["after"]),
        helper.make_node("Conv", ["after", "third"], ["last"]),
        helper.make_node("ReduceMean", ["last", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "size"], ["score"]),
    ]
    constants = {
        "one": np.array([1]),
        "axes": np.array([1, 2]),
        "size": np.float32(size),
        "first": weights(8, 1, 16),
        "second": weights(8, 8, 3),
        "third": np.abs(weights(8, 8, 3)),  # so that the score is nearly the mean of the ELU
    }
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    waveform = helper.make_tensor_value_info("waveform", onnx.TensorProto.FLOAT, [1, 16_000])
    score = helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "around-an-elu", [waveform], [score], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


# As a share of the largest score. An exponential that is a straight line instead makes it 1.3.
ELU_ERROR = 0.05


@pytest.mark.parametrize("recipe", [pytest.param("w8a8", marks=FULL_RANGE), "w8a8-rr"])
@pytest.mark.parametrize("size", [10.0, 1.0])  # above and below what the 8-bit exponential reaches
def test_an_elu_stays_one_however_small_its_values(size: float, recipe: str) -> None:
    model = convolutions_around_an_elu(size)
    clips = 3 * speech_like_batch(8, 16_000, seed=1)
    quantized = calibrate(model, parse_recipe(recipe), clips, "mse").quantize()
    scores = [
        [session.run(None, {"waveform": clip[None]})[0][0] for clip in clips]
        for session in (open_session(one.SerializeToString(), threads=1) for one in (model, quantized))
    ]
    assert np.abs(np.subtract(*scores)).max() <= ELU_ERROR * np.abs(scores[0]).max()


@pytest.mark.parametrize("recipe", ["w8a8", "w8a16"])
def test_a_bias_beside_weights_of_next_to_nothing_stays_what_it_is(recipe: str) -> None:
    clips, scores = 3 * speech_like_batch(8, 16_000, seed=1), []
    for share in (0.0, 1e-12, 1e-38):  # of what the weights of one channel were
        model = convolutions_around_an_elu(1.0)
        weights = next(one for one in model.graph.initializer if one.name == "third")
        values = numpy_helper.to_array(weights) * np.float32([share] + 7 * [1]).reshape(8, 1, 1)
        weights.CopyFrom(numpy_helper.from_array(values, "third"))
        model.graph.initializer.append(numpy_helper.from_array(np.full(8, 3, np.float32), "bias"))
        next(node for node in model.graph.node if "third" in node.input).input.append("bias")
        quantized = calibrate(model, parse_recipe(recipe), clips, "mse").quantize()
        session = open_session(quantized.SerializeToString(), threads=1)
        scores.append([session.run(None, {"waveform": clip[None]})[0][0] for clip in clips])
    assert scores[0] == scores[1] == scores[2]


def test_a_relu_takes_no_integers_for_what_it_cuts_off() -> None:
    model = convolutions_around_an_elu(1.0)
    elu = next(node for node in model.graph.node if node.op_type == "Elu")
    elu.op_type = "Relu"
    quantized = calibrate(
        model, parse_recipe("w8a8"), 3 * speech_like_batch(8, 16_000, seed=1), "mse"
    ).quantize()
    constants = {one.name: numpy_helper.to_array(one) for one in quantized.graph.initializer}
    by_output = {node.output[0]: node for node in quantized.graph.node}
    relu = next(node for node in quantized.graph.node if node.op_type == "Relu")
    before = by_output[relu.input[0]]
    after = next(node for node in quantized.graph.node if relu.output[0] in node.input)
    assert (before.op_type, after.op_type) == ("DequantizeLinear", "QuantizeLinear")
    grids = [[constants[name] for name in node.input[1:]] for node in (before, after)]
    assert grids[0] == grids[1]
    assert grids[0][1] == 0  # all 256 integers lie at or above 0
