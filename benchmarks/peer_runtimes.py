"""Opens the files of other runtimes for timing: OpenVINO, ExecuTorch, MNN and PyTorch itself.

Such a file is a folder that ends in ``.peer``; its ``peer.json`` names the runtime.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.audio import CLIP_SAMPLES
from antispoof.errors import UserError

SUFFIX = ".peer"
SHAPE = (1, CLIP_SAMPLES)
# What a worker imports before it measures memory, as for our own formats.
LIBRARIES = {
    "openvino": "openvino",
    "executorch": "executorch.runtime",
    "mnn": "MNN",
    "torch-eager": "torch",
    "torch-compiled": "torch._dynamo",
}

# Reports of use that these libraries send home, unasked, when they are imported or called.
REPORTING = ("openvino_telemetry", "MNN.tools.utils.log")

Run = Callable[[np.ndarray], Any]


def keep_quiet() -> None:
    """Makes the modules that report to their makers impossible to import; their callers do without."""
    for name in REPORTING:
        sys.modules[name] = None  # type: ignore[assignment]


def runtime_of(path: Path) -> str:
    """Returns the runtime that a peer's file is for."""
    return str(json.loads((path / "peer.json").read_text(encoding="utf-8"))["runtime"])


def library_of(path: Path) -> str:
    """Returns the module of that runtime."""
    return LIBRARIES[runtime_of(path)]


def open_run(path: Path, threads: int) -> Run:
    """Returns what runs a peer's file on ``(1, samples)`` and returns its outputs as it likes.

    Raises:
        UserError: Its library is not installed.
    """
    runtime = runtime_of(path)
    keep_quiet()
    try:
        importlib.import_module(LIBRARIES[runtime])
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'antispoof[peers]'") from error
    return OPENERS[runtime](path, threads)


def _openvino(path: Path, threads: int) -> Run:
    import openvino

    # float32 is asked for: where the processor has bfloat16, its hints may choose that instead.
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path / "model.xml", "CPU", options)
    request = model.create_infer_request()

    def run(clips: np.ndarray) -> list[np.ndarray]:
        request.infer([clips])
        return [tensor.data for tensor in request.output_tensors]

    return run


def _executorch(path: Path, threads: int) -> Run:
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(threads)
    method = Runtime.get().load_program(path / "model.pte").load_method("forward")
    return lambda clips: method.execute([torch.from_numpy(clips)])


def _mnn(path: Path, threads: int) -> Run:
    import MNN

    interpreter = MNN.Interpreter(str(path / "model.mnn"))
    session = interpreter.createSession({"backend": "CPU", "numThread": threads, "precision": "high"})
    target = interpreter.getSessionInput(session)

    def run(clips: np.ndarray) -> list[np.ndarray]:
        given = MNN.Tensor(SHAPE, MNN.Halide_Type_Float, clips, MNN.Tensor_DimensionType_Caffe)
        target.copyFrom(given)
        interpreter.runSession(session)
        outputs = [np.array(tensor.getData()) for tensor in interpreter.getSessionOutputAll(session).values()]
        if not all(output.size for output in outputs):
            raise UserError("MNN computed no output: it gets the shape of an intermediate result wrong")
        return outputs

    return run


def _torch_eager(path: Path, threads: int) -> Run:
    return _torch(path, threads, compiled=False)


def _torch_compiled(path: Path, threads: int) -> Run:
    return _torch(path, threads, compiled=True)


def _torch(path: Path, threads: int, *, compiled: bool) -> Run:
    import torch

    from antispoof.memory import keep_freed_memory
    from benchmarks.peer_networks import open_network

    keep_freed_memory()  # without it PyTorch would look twice as slow as it need be
    torch.set_num_threads(threads)
    network = open_network(path)
    call = torch.compile(network) if compiled else network

    def run(clips: np.ndarray) -> Any:
        with torch.inference_mode():
            return call(torch.from_numpy(clips))

    return run


OPENERS: dict[str, Callable[[Path, int], Run]] = {
    "openvino": _openvino,
    "executorch": _executorch,
    "mnn": _mnn,
    "torch-eager": _torch_eager,
    "torch-compiled": _torch_compiled,
}
