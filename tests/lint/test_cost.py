"""What a graph costs: the multiply-adds counted by hand and by PyTorch, and the same in every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from torch.utils.flop_counter import FlopCounterMode

from antispoof.graph_cost import total_cost
from antispoof.models import create_model, model_names, small_config
from export import to_coreml, to_onnx, to_tflite
from export.graph import ScoreGraph
from export.lint import lint
from export.placement import place
from export.targets import load_target
from runtimes import litert
from runtimes.graphs import read_graph
from tests.lint.small_files import found, save, value, weights


def case(kind: str, weight: np.ndarray, shape: list[int], macs: int, **attributes: Any) -> tuple[Any, ...]:
    return helper.make_node(kind, ["x", "w"], ["y"], **attributes), weight, shape, macs


COSTS = {
    "Conv": case("Conv", weights(6, 4, 3), [1, 4, 9], 6 * 4 * 12, strides=[2]),
    "Conv, grouped": case("Conv", weights(6, 2, 3), [1, 4, 9], 6 * 9 * 2 * 3, group=2, pads=[1, 1]),
    "ConvTranspose": case("ConvTranspose", weights(4, 5, 3), [1, 4, 9], 4 * 9 * 5 * 3),
    "MatMul": case("MatMul", weights(9, 7), [2, 4, 9], 2 * 4 * 9 * 7),
    "Gemm, turned": case("Gemm", weights(4, 7), [4, 9], 9 * 4 * 7, transA=1),
    "Einsum": case("Einsum", weights(9, 7), [2, 4, 9], 2 * 4 * 9 * 7, equation="bij,jk->bik"),
    "element-wise": case("Mul", weights(9), [2, 4, 9], 0),
}


@pytest.mark.parametrize("case", COSTS)
def test_multiply_adds_are_those_counted_by_hand(case: str, tmp_path: Path) -> None:
    node, weight, shape, expected = COSTS[case]
    graph = read_graph(save(tmp_path / "m.onnx", [node], [value("x", shape)], [value("y", None)], w=weight))
    cost = total_cost(graph.nodes, graph.values)
    assert (cost.macs, cost.unknown) == (expected, 0)
    written = graph.values["y"]
    assert (cost.elements, cost.bytes_written) == (written.elements, 4 * written.elements)
    assert cost.bytes_read == 4 * (np.prod(shape) + weight.size)


def test_multiply_adds_are_those_that_pytorch_counts(exported_model: Path) -> None:
    graph = read_graph(exported_model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector = create_model("aasist-l")
        ScoreGraph(detector)(detector.example_input())
    cost = total_cost(graph.nodes, graph.values)
    # PyTorch's counter leaves out 32,880 of products with vectors; 1,536 follow from weights alone and are
    # folded away by the exporter.
    assert cost.macs == pytest.approx(counter.get_total_flops() / 2, rel=1e-5)
    assert cost.unknown == 0


def test_a_loop_costs_its_body_times_its_repeats(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("Add", ["next", "item"], ["out"]),
        ],
        "body",
        [value("state", [1, 4]), value("item", [1, 4])],
        [value("next", [1, 4]), value("out", [1, 4])],
    )
    scan = helper.make_node("Scan", ["start", "x"], ["last", "y"], body=body, num_scan_inputs=1)
    path = save(
        tmp_path / "m.onnx",
        [scan],
        [value("x", [6, 1, 4])],
        [value("last", [1, 4]), value("y", [6, 1, 4])],
        w=weights(4, 4),
        start=weights(1, 4),
    )
    graph = read_graph(path)
    assert total_cost(graph.nodes, graph.values).macs == 6 * 16
    assert "no Scan" in found(lint(path, "webgpu"), "operation")
    assert not lint(path).placement.refused


def test_what_follows_from_constants_and_shapes_is_folded_away(tmp_path: Path) -> None:
    """The older exporter of torch computes the shape of every Expand in the graph."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "last"], ["size"]),
        helper.make_node("Concat", ["two", "size"], ["wanted"], axis=0),
        helper.make_node("Expand", ["row", "wanted"], ["wide"]),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    constants = {"last": np.array([1]), "two": np.array([5], np.int64), "row": weights(1, 1)}
    path = save(tmp_path / "m.onnx", nodes, [value("x", [3, 5])], [value("y", None)], **constants)
    graph = read_graph(path)
    assert [node.kind for node in graph.nodes] == ["MatMul"]
    assert total_cost(graph.nodes, graph.values).macs == 3 * 5 * 5


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_every_model_costs_the_same_in_every_format_and_xnnpack_agrees(name: str, tmp_path: Path) -> None:
    flags = ["--model", name, "--checkpoint", "random", "--out", str(tmp_path)]
    for key, setting in small_config(name).items():
        flags += ["--set", f"{key}={setting if isinstance(setting, str) else json.dumps(setting)}"]
    for exporter in (to_onnx, to_tflite, to_coreml):
        assert exporter.main(flags) == 0
    costs = {}
    for suffix in (".onnx", ".tflite", ".mlpackage"):
        report = lint(tmp_path / f"{name}{suffix}")
        assert report.graph.facts is not None
        assert (
            not [f for f in report.findings if f.level == "problem" and f.check != "partitions"]
            or suffix == ".tflite"
        )
        costs[suffix] = report.placement.whole
        assert report.placement.whole.unknown == 0
    # Tiles of time overlap, and the static scan does more than the loop.
    assert costs[".mlpackage"].macs == pytest.approx(costs[".onnx"].macs, rel=0.02)
    assert costs[".onnx"].macs <= costs[".tflite"].macs * 1.02
    actual = litert.partitions(tmp_path / f"{name}.tflite")
    predicted = place(read_graph(tmp_path / f"{name}.tflite"), load_target("xnnpack", "tflite"))
    # What XNNPACK leaves out beyond the table are reshapes to a number, of which WavLM has four.
    assert 0 <= actual.outside - len(predicted.refused) <= 4
