"""What models cost, against sums done by hand, and how the measured limit is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from antispoof.errors import UserError
from antispoof.models import create_model
from benchmarks import cost
from benchmarks.layer_costs import Layer, by_kind, graph_layers, module_layers
from benchmarks.timing.machine_limit import Speed, time_against_limit
from runtimes.graphs import read_graph

FLOAT = 4  # bytes
AASIST_L_MACS = 6.595e9
EXPORT_TOLERANCE = (
    1e-6  # products of weights alone, 1,536 multiply-adds, are done once and for all in the file
)

Capture = pytest.CaptureFixture[str]


class Small(nn.Module):
    """A convolution, a view, an activation and two layers that share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.square = nn.Linear(10, 10)
        self.again = nn.Linear(10, 10)
        self.again.weight = self.square.weight

    def forward(self, x: Tensor) -> Tensor:
        bands = torch.relu(self.conv(x)).flatten(2)  # (2, 8, 60): the activation is the root's own work
        return self.again(self.square(bands.reshape(2, 8, 6, 10)))


def test_a_network_costs_what_its_layers_sum_to_by_hand() -> None:
    layers = {layer.name: layer for layer in module_layers(Small(), torch.zeros(2, 3, 6, 10))}
    map_bytes, input_bytes = 2 * 8 * 60 * FLOAT, 2 * 3 * 60 * FLOAT
    assert list(layers) == ["conv", "(root)", "square", "again"]
    conv, root, square, again = layers.values()
    assert (conv.kind, conv.macs, conv.parameters) == ("Conv2d", 2 * 8 * 60 * 3 * 9, 8 * 3 * 9 + 8)
    assert (square.macs, square.parameters) == (2 * 8 * 6 * 10 * 10, 110)
    assert (again.macs, again.parameters) == (square.macs, 10)  # the bias; the weight is shared
    assert (root.macs, root.parameters) == (0, 0)
    assert [layer.bytes_written for layer in layers.values()] == [map_bytes] * 4
    # The input is the caller's and stays. Of the maps two live at a time: what is read, what is written.
    assert conv.live_bytes == input_bytes + map_bytes
    assert root.live_bytes == square.live_bytes == input_bytes + 2 * map_bytes
    assert again.live_bytes == input_bytes + 3 * map_bytes  # bands has a name until forward returns


def test_products_with_a_vector_count() -> None:
    class Vectors(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x @ x[0, 0]) @ torch.ones(5)

    (layer,) = module_layers(Vectors(), torch.ones(4, 5, 6))
    assert layer.macs == 4 * 5 * 6 + 4 * 5


def graph_file(folder: Path) -> Path:
    """Conv over (1, 3, 10), reshaped, times a matrix, plus the convolution's own result."""
    weights = {
        "kernel": np.ones((4, 3, 3), np.float32),
        "matrix": np.ones((8, 8), np.float32),
        "rows": np.array([4, 8]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"], name="conv"),  # (1, 4, 8)
        helper.make_node("Reshape", ["a", "rows"], ["b"], name="view"),  # (4, 8)
        helper.make_node("MatMul", ["b", "matrix"], ["c"], name="product"),
        helper.make_node("Relu", ["c"], ["d"], name="relu"),
        helper.make_node("Add", ["d", "b"], ["y"], name="sum"),
    ]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 10])]
    ends += [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    path = folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_graph_costs_what_its_nodes_sum_to_by_hand(tmp_path: Path) -> None:
    layers = graph_layers(read_graph(graph_file(tmp_path)))
    x, one = 30 * FLOAT, 32 * FLOAT
    assert layers == [
        Layer("conv", "Conv", 4 * 8 * 3 * 3, 36, one, x + one),
        Layer("view", "Reshape", 0, 0, 0, one),  # no memory of its own; x is no longer needed
        Layer("product", "MatMul", 4 * 8 * 8, 64, one, 2 * one),
        Layer("relu", "Relu", 0, 0, one, 3 * one),  # a, under the name of b, is needed at the end
        Layer("sum", "Add", 0, 0, one, 3 * one),
    ]


def test_aasist_l_costs_the_same_in_pytorch_and_as_a_file(exported_model: Path) -> None:
    model = create_model("aasist-l").eval()
    eager = module_layers(model, model.example_input())
    nodes = graph_layers(read_graph(exported_model))
    macs = [sum(layer.macs for layer in layers) for layers in (eager, nodes)]
    assert macs[0] == pytest.approx(AASIST_L_MACS, rel=1e-3)
    assert macs[1] == pytest.approx(macs[0], rel=EXPORT_TOLERANCE)
    dearest = [max(layers, key=lambda layer: layer.macs) for layers in (eager, nodes)]
    assert dearest[0].macs == dearest[1].macs
    assert sum(layer.parameters for layer in eager) == sum(p.numel() for p in model.parameters())
    # The largest map is (1, 32, 23, 21490) at the most, and a residual sum reads two to write one.
    live = [max(layer.live_bytes for layer in layers) for layers in (eager, nodes)]
    assert live[1] == pytest.approx(live[0], rel=0.05)


def test_kinds_are_summed(tmp_path: Path) -> None:
    layers = graph_layers(read_graph(graph_file(tmp_path)))
    summed = by_kind([*layers, layers[2]])
    product = next(layer for layer in summed if layer.kind == "MatMul")
    assert (product.name, product.macs, product.live_bytes) == ("2 x", 512, layers[2].live_bytes)


def test_a_product_is_as_fast_as_the_limit_and_idling_is_not() -> None:
    factor = torch.ones(1024, 1024)
    speed = time_against_limit(lambda: factor @ factor, 1024**3, runs=3)
    # The same product timed twice, each the fastest of three on a machine that others use too.
    assert speed.gflops == pytest.approx(speed.limits_gflops["PyTorch"], rel=0.4)
    assert set(speed.limits_gflops) == {"PyTorch", "ONNX Runtime"}
    assert speed.limit[1] == max(speed.limits_gflops.values())
    half = Speed(1.0, 50.0, {"one": 80.0, "other": 100.0}, 1)
    assert (half.limit, half.share) == (("other", 100.0), 0.5)


def test_the_command_counts_times_and_writes(tmp_path: Path, capsys: Capture) -> None:
    path, out = graph_file(tmp_path), tmp_path / "cost.json"
    assert cost.main([str(path), "--top", "2", "--runs", "1", "--json", str(out)]) == 0
    table, speed = capsys.readouterr().out.split("\n\n")
    assert [line.split()[0] for line in table.splitlines()] == ["layer", "conv", "product", "total"]
    assert "GFLOP/s" in speed
    content = json.loads(out.read_text())
    assert [row["name"] for row in content["rows"]] == ["conv", "view", "product", "relu", "sum"]
    assert content["conditions"]["macs"] == 288 + 256
    assert str(tmp_path) not in out.read_text()
    assert cost.main([str(path), "--by", "kind", "--no-time"]) == 0
    assert "GFLOP" not in capsys.readouterr().out
    with pytest.raises(UserError, match="--force"):
        cost.main([str(path), "--json", str(out)])


def test_a_file_whose_shapes_only_a_run_decides_gets_no_sum(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Gather", ["x", "where"], ["y"], axis=1),
        helper.make_node("MatMul", ["y", "matrix"], ["z"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 8]), ("z", None))
    ]
    matrix = numpy_helper.from_array(np.ones((2, 4), np.float32), "matrix")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [matrix])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    with pytest.raises(UserError, match="3 of 3 operations have a shape that only a run decides"):
        cost.main([str(path), "--no-time"])


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="aasist-xl is no file and no model; there are: aasist, "):
        cost.main(["aasist-xl"])
    with pytest.raises(UserError, match="--model is for checkpoints"):
        cost.main([str(graph_file(tmp_path)), "--model", "aasist"])
    with pytest.raises(UserError, match="--runs takes at least 1"):
        cost.main(["aasist", "--runs", "0"])
