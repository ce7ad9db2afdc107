"""Quantized files whose float part is computed in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from antispoof.errors import UserError
from antispoof.manifest_reader import read_manifest
from antispoof.speechlike import speech_like_batch
from export import to_onnx
from quantize import onnx_int8
from quantize.float64 import to_float64
from runtimes import load
from runtimes.golden import check_golden, golden_tolerance, make_golden
from runtimes.ort import open_session

FLOAT32 = 1e-6  # of the largest output: what float32 rounds away, in sums of a hundred values
RECIPE = "w8a8-rr-f64"
CLIP = 16_000


def graph_of(operation: str, source: tuple[int, ...], *constants: np.ndarray, **attributes: Any) -> bytes:
    """Returns a model of one node; the batch, which is 1, is left open."""
    names = [f"constant{i}" for i in range(len(constants))]
    node = helper.make_node(operation, ["x", *names], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        operation,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, source)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(row, name) for name, row in zip(names, constants, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return shape_inference.infer_shapes(model, strict_mode=True).SerializeToString()


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


CASES: dict[str, tuple[Any, ...]] = {
    "1-D by phases": ("Conv", (1, 4, 50), (drawn(12, 1, 8),), {"strides": [3], "group": 4}),
    "padded": ("Conv", (1, 3, 20), (drawn(5, 3, 4), drawn(5)), {"pads": [1, 2]}),
    "dilated": ("Conv", (1, 2, 30), (drawn(4, 2, 3),), {"dilations": [4], "strides": [2]}),
    "2-D": ("Conv", (1, 4, 9, 12), (drawn(6, 2, 3, 2), drawn(6)), {"group": 2, "pads": [1, 0, 2, 1]}),
    "1x1": ("Conv", (1, 6, 5, 7), (drawn(3, 6, 1, 1),), {}),
    "1x1 in steps": ("Conv", (1, 6, 5, 7), (drawn(3, 6, 1, 1),), {"strides": [2, 3]}),
    "moving average": ("AveragePool", (1, 1, 24, 5), (), {"kernel_shape": [17, 1], "pads": [8, 0, 8, 0]}),
    "average": ("AveragePool", (1, 2, 9, 11), (), {"kernel_shape": [3, 2], "strides": [2, 3]}),
    "zeros count": (
        "AveragePool",
        (1, 2, 12),
        (),
        {"kernel_shape": [4], "pads": [2, 1], "count_include_pad": 1},
    ),
    "ELU": ("Elu", (1, 40), (), {"alpha": 0.7}),
    "SELU": ("Selu", (1, 40), (), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_has_no_float64_kernel_is_computed_all_the_same(case: str) -> None:
    operation, source, constants, attributes = CASES[case]
    if operation == "Conv":
        attributes = {"kernel_shape": list(constants[0].shape[2:]), **attributes}
    model = graph_of(operation, source, *constants, **attributes)
    wide = to_float64(onnx.load_model_from_string(model))
    x = drawn(*source)
    expected, found = (
        open_session(content, threads=1).run(None, {"x": x})[0]
        for content in (model, wide.SerializeToString())
    )
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= FLOAT32 * np.abs(expected).max()
    assert not np.array_equal(found, np.zeros_like(found))


def test_a_large_convolution_is_refused() -> None:
    model = graph_of("Conv", (1, 64, 4096), drawn(64, 64, 129), kernel_shape=[129])
    with pytest.raises(UserError, match="large float convolution"):
        to_float64(onnx.load_model_from_string(model))


@pytest.fixture(scope="module", params=["fscnn", pytest.param("aasist-l", marks=pytest.mark.slow)])
def quantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundled model in the INT8 that is the same everywhere, of one-second clips."""
    folder = tmp_path_factory.mktemp(request.param)
    bundled = Path(to_onnx.__file__).parents[1] / "antispoof" / "checkpoints" / f"{request.param}.safetensors"
    to_onnx.main(["--checkpoint", str(bundled), "--set", f"clip_samples={CLIP}", "--out", str(folder)])
    for recipe in (RECIPE, "w8a8-rr"):
        assert onnx_int8.main([str(folder / f"{request.param}.onnx"), "--recipe", recipe]) == 0
    return folder / f"{request.param}.{RECIPE}.onnx"


def test_nothing_is_added_up_in_float32(quantized: Path) -> None:
    """Float32 is left where a value is one input, one product or one sum of two: rounded alike everywhere."""
    graph = shape_inference.infer_shapes(onnx.load(quantized), strict_mode=True, data_prop=True).graph
    floats = {row.name for row in graph.value_info if row.type.tensor_type.elem_type == TensorProto.FLOAT}
    readers = {name: [n.op_type for n in graph.node if name in n.input] for name in floats}
    for node in graph.node:
        if not floats & set(node.output) or node.op_type in ("Cast", "DequantizeLinear"):
            continue
        on_integers = all(reader == "QuantizeLinear" for name in node.output for reader in readers[name])
        assert on_integers or node.name == "score.correction", node.name
        assert node.op_type in ("Conv", "Relu", "MaxPool", "Sigmoid", "Sum", "Add"), node.op_type
        assert node.op_type != "Add" or node.name == "score.correction"


def test_it_scores_like_the_same_integers_with_float32(quantized: Path) -> None:
    plain = load(quantized.with_name(quantized.name.replace("-f64", "")))
    clips = speech_like_batch(6, CLIP, seed=77)
    assert np.abs(load(quantized).score(clips) - plain.score(clips)).max() < 0.2  # some integers flip


def test_golden_scores_of_it_hold_to_the_bit(quantized: Path, tmp_path: Path) -> None:
    runtime = load(quantized)
    assert golden_tolerance(quantized, read_manifest(quantized)) == 0
    golden = make_golden(runtime, quantized.parent)
    assert golden.tolerance == 0
    assert check_golden(runtime) == 0
