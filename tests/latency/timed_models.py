"""ONNX models whose time is known: as long as they have layers, or without end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SAMPLES, WIDTH = 16_000, 250
LAYERS = 50
TIME_OUT_S = 60.0


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
