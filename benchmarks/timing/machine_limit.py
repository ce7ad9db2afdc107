"""Says how fast a model computes beside the fastest matrix product that a library reaches on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from antispoof.errors import UserError
from runtimes.ort import open_session

SIZE = 1024  # rows and columns; larger and smaller products reach the same within 5 % (256 to 2048 measured)
WARM_UP = 2
OPSET = 18


@dataclass(frozen=True)
class Speed:
    """How fast a model computes, and how fast the machine could.

    Attributes:
        seconds: Processor time of the fastest run.
        gflops: Its multiply-adds, twice, per second, in 1e9.
        limits_gflops: The same of a large float32 matrix product, by the library that computes it.
        runs: How many runs of each there were.
    """

    seconds: float
    gflops: float
    limits_gflops: dict[str, float]
    runs: int

    @property
    def limit(self) -> tuple[str, float]:
        """The library that multiplies fastest, and how fast."""
        return max(self.limits_gflops.items(), key=lambda row: row[1])

    @property
    def share(self) -> float:
        """Which part of the limit the model reaches."""
        return self.gflops / self.limit[1]


def time_against_limit(compute: Callable[[], Any], macs: int, runs: int) -> Speed:
    """Times a model and matrix products in turns, one thread each.

    The fastest run counts: whatever else the machine does only ever slows one down. Libraries differ by
    the instructions that they use: on an AMD EPYC with AVX-512 PyTorch reaches 109 GFLOP/s, ONNX Runtime
    240, so that one of them alone would be no limit.

    Args:
        compute: Runs the model once, on this thread.
        macs: Multiply-adds of a run.
        runs: How often each is timed.
    """
    torch.set_num_threads(1)
    tasks = {"": compute, **_products()}
    fastest = dict.fromkeys(tasks, float("inf"))
    for turn in range(WARM_UP + runs):
        for name, task in tasks.items():
            start = time.thread_time()
            task()
            if turn >= WARM_UP:
                fastest[name] = min(fastest[name], time.thread_time() - start)
    seconds = fastest.pop("")
    limits = {name: 2 * SIZE**3 / fastest[name] / 1e9 for name in fastest}
    return Speed(seconds, 2 * macs / seconds / 1e9, limits, runs)


def _products() -> dict[str, Callable[[], Any]]:
    """Returns a product of two square matrices by each library that is installed."""
    factor = np.ones((SIZE, SIZE), np.float32)
    tensor = torch.from_numpy(factor)
    products: dict[str, Callable[[], Any]] = {"PyTorch": lambda: tensor @ tensor}
    try:
        session = open_session(_product_file(factor), threads=1)
    except (ImportError, UserError):
        return products
    products["ONNX Runtime"] = lambda: session.run(None, {"x": factor})
    return products


def _product_file(factor: np.ndarray) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, factor.shape) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "factor"], ["y"])
    graph = helper.make_graph(
        [node], "product", ends[:1], ends[1:], [numpy_helper.from_array(factor, "factor")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    return bytes(model.SerializeToString())
