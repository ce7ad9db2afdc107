"""Files that several tests lint: one with the operations of the public AASIST, one for Core ML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from runtimes.mlpackage import import_coremltools, quiet
from tests.lint.small_files import SAMPLES, save, value, weights


@pytest.fixture
def aasist_like(tmp_path: Path) -> Path:
    """The operations that make the public AASIST hard on phones, in its own order and at its own length."""
    nodes = [
        helper.make_node("Conv", ["wave", "sinc"], ["filtered"]),
        helper.make_node("Abs", ["filtered"], ["size"]),
        helper.make_node("MaxPool", ["size"], ["pooled"], kernel_shape=[3], strides=[3]),
        helper.make_node("Selu", ["pooled"], ["active"]),
        helper.make_node("TopK", ["active", "k"], ["top", "places"]),
        helper.make_node("GatherElements", ["active", "places"], ["picked"], axis=-1),
        helper.make_node("ScatterND", ["picked", "where", "update"], ["written"]),
        helper.make_node("ReduceSum", ["written"], ["score"], keepdims=0),
    ]
    return save(
        tmp_path / "public.onnx",
        nodes,
        [value("wave", [1, 1, SAMPLES])],
        [value("score", [])],
        sinc=weights(4, 1, 129),
        k=np.array([5], np.int64),
        where=np.array([[0, 0, 0]], np.int64),
        update=weights(1),
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a small ML Program over a long waveform, in float32 or float16."""
    pytest.importorskip("coremltools")
    coremltools = import_coremltools()
    from coremltools.converters.mil import Builder as mb

    def write(precision: str) -> Path:
        def build(x: Any) -> Any:
            folded = mb.reshape(x=x, shape=[1, 4, 1, SAMPLES // 4])
            y = mb.conv(x=folded, weight=weights(8, 4, 1, 5), strides=[1, 5])
            return mb.reduce_mean(x=mb.elu(x=y, alpha=1.0), axes=[1, 2, 3])

        with quiet():
            program = mb.program(
                input_specs=[mb.TensorSpec((1, SAMPLES))], opset_version=coremltools.target.iOS17
            )(build)
            model = coremltools.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target.iOS17,
                compute_precision=coremltools.precision[precision],
                skip_model_load=True,
            )
            path = tmp_path_factory.mktemp("package") / f"{precision}.mlpackage"
            model.save(str(path))
        return path

    return write
