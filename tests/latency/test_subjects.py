"""What can be timed: checkpoints in eager mode, and files with shapes of other makers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from antispoof.checkpoint import save_checkpoint
from antispoof.errors import UserError
from antispoof.models import create_model
from benchmarks.timing.subjects import open_subject


def test_checkpoint_is_timed_in_eager_mode(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(create_model("aasist-l"), path)
    subject = open_subject(path, threads=2, model="aasist-l")
    assert subject.facts == {"format": "torch", "manifest": False}
    assert subject.run(np.zeros(subject.shape, np.float32)).shape == (1,)


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
