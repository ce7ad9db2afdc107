"""ONNX files of the scan in ONNX Runtime: their inputs, their calls and their peak of memory.

Kept free of PyTorch, so that the process whose memory is measured has no pages but its own to give back.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

STATES = 16

Shape = tuple[int, int, int]
Call = Callable[[], np.ndarray]


class Inputs(NamedTuple):
    """Float32 inputs of one shape: (batch, length, channels or states), and the rates (channels, states)."""

    x: np.ndarray
    delta: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray


def draw(shape: Shape, seed: int = 0) -> Inputs:
    """Returns inputs as at the start of training: steps log-uniform in 0.001 to 0.1, rates -1 to -16."""
    batch, length, channels = shape
    generator = np.random.default_rng(seed)
    rates = -np.tile(np.arange(1, STATES + 1, dtype=np.float32), (channels, 1))
    delta = np.exp(generator.uniform(np.log(1e-3), np.log(0.1), shape)).astype(np.float32)
    x, b, c = (
        generator.standard_normal((batch, length, width), np.float32) for width in (channels, STATES, STATES)
    )
    return Inputs(x, delta, rates, b, c)


def ort_call(path: Path, inputs: Inputs) -> Call:
    """Returns a call of an ONNX file in ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {item.name: getattr(inputs, item.name) for item in session.get_inputs()}
    return lambda: session.run(None, feeds)[0]


def peak_mib(path: Path, shape: Shape) -> float | None:
    """Returns the memory that running a file needs above the loaded model, from a process of its own.

    None where the system is not Linux and does not tell.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    program = f"from benchmarks import scan_ort as s; print(s.measure_peak(s.Path({str(path)!r}), {shape!r}))"
    command = [sys.executable, "-P", "-c", program]
    return round(float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout), 2)


def measure_peak(path: Path, shape: Shape) -> float:
    """Returns the same, for this process; whatever ran in it before takes away from the figure."""
    call = ort_call(path, draw(shape))
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    loaded = _status_kib("VmRSS")
    for _ in range(3):
        call()
    return (_status_kib("VmHWM") - loaded) / 1024


def _status_kib(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1])
