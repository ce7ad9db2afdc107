"""What `scan_limit` times: the C kernel and the forms of the scan, as calls without arguments."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from antispoof.errors import CheckFailed, UserError
from antispoof.lowering import ScanForm
from antispoof.scan import FORMS
from benchmarks.scan_ort import STATES, Call, Inputs

KERNEL = Path(__file__).with_name("scan_kernel.c")
# -fno-math-errno and -fno-trapping-math let the loops be vectorised; neither changes a number.
COMPILE = (
    "-std=c99",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-shared",
    "-fPIC",
)
# Instruction sets of a build: its flags, and what the CPU must have to run it.
BUILDS = {
    "c plain": ((), ()),
    "c avx2": (("-mavx2", "-mfma"), ("avx2", "fma")),
    "c avx512": (
        ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"),
        ("avx512f", "avx512bw", "avx512vl"),
    ),
}


class CoreScan(torch.nn.Module):
    """One form of the scan with its rates as a constant, as a layer has them."""

    A: torch.Tensor

    def __init__(self, rates: np.ndarray, form: ScanForm) -> None:
        super().__init__()
        self.register_buffer("A", torch.from_numpy(rates))
        self.form = form

    def forward(self, x: torch.Tensor, delta: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
        """Returns C . h, (batch, length, channels)."""
        return FORMS[self.form](x, delta, self.A, B, C, False)


def build_kernels(folder: Path, cpu_flags: Sequence[str]) -> dict[str, ctypes.CDLL]:
    """Compiles the kernel for each instruction set that this CPU has.

    Raises:
        UserError: there is no C compiler, or it fails.
    """
    compiler = os.environ.get("CC", "cc")
    libraries = {}
    for name, (flags, needed) in BUILDS.items():
        if not set(needed) <= set(cpu_flags):
            continue
        target = folder / f"{name.replace(' ', '-')}.so"
        command = [compiler, *COMPILE, *flags, str(KERNEL), "-o", str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except OSError as error:
            raise UserError(f"no C compiler {compiler!r}; name one in the variable CC") from error
        except subprocess.CalledProcessError as error:
            raise UserError(f"{compiler} cannot compile {KERNEL.name}: {error.stderr}") from error
        libraries[name] = ctypes.CDLL(str(target))
    return libraries


def compiler_version() -> str:
    """Returns the first line of what the compiler says of itself."""
    command = [os.environ.get("CC", "cc"), "--version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.partition("\n")[0]


def kernel_call(library: ctypes.CDLL, inputs: Inputs) -> Call:
    """Returns a call of the kernel; its output is allocated once, as a caller in C would."""
    rates = np.ascontiguousarray(inputs.A.T)
    y = np.empty_like(inputs.x)
    arrays = (inputs.x, inputs.delta, rates, inputs.B, inputs.C, y)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
    sizes = [ctypes.c_size_t(size) for size in (*inputs.x.shape, STATES)]

    def call() -> np.ndarray:
        if library.selective_scan(*pointers, *sizes):
            raise CheckFailed(f"the kernel has no room for {STATES} states")
        return y

    call.keeps = arrays  # type: ignore[attr-defined]  # pointers do not
    return call


def torch_call(form: ScanForm, inputs: Inputs) -> Call:
    """Returns a call of a form in PyTorch without gradients."""
    x, delta, A, B, C = (torch.from_numpy(array) for array in inputs)

    def call() -> np.ndarray:
        with torch.inference_mode():
            return FORMS[form](x, delta, A, B, C, False).numpy()

    return call


class OneProduct(torch.nn.Module):
    """A Scan over as many steps as the selective one's, which multiplies its state once in each."""

    A: torch.Tensor

    def __init__(self, rates: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("A", torch.from_numpy(rates.T.copy()))

    def forward(self, delta: torch.Tensor) -> torch.Tensor:
        """Returns the last state, (batch, states, channels), for ``delta (batch, length, channels)``."""
        from torch._higher_order_ops.scan import scan_op

        def step(h: torch.Tensor, d: torch.Tensor, rate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return h * rate, d.clone()

        state = delta.new_ones((len(delta), *self.A.shape))
        state, steps = scan_op(step, [state], [delta[:1, :, :1].transpose(0, 1).contiguous()], (self.A,))
        return state + steps.sum()


def export_product(inputs: Inputs, target: Path) -> None:
    """Writes a Scan of one product a step as an ONNX file."""
    with torch.no_grad():
        program = torch.onnx.export(
            OneProduct(inputs.A),
            (torch.from_numpy(inputs.delta),),
            input_names=("delta",),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    target.write_bytes(program.model_proto.SerializeToString())


def export_onnx(form: ScanForm, inputs: Inputs, target: Path, dynamic: bool = False) -> int:
    """Writes one form as an ONNX file and returns its number of nodes, those of loop bodies included."""
    example = tuple(torch.from_numpy(getattr(inputs, name)) for name in ("x", "delta", "B", "C"))
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    if dynamic:  # an example of length 1 would make that size a constant
        example = tuple(v.expand(2, -1, -1).contiguous() if len(v) == 1 else v for v in example)
    with torch.no_grad():
        program = torch.onnx.export(
            CoreScan(inputs.A, form),
            example,
            input_names=("x", "delta", "B", "C"),
            dynamo=True,
            verbose=False,
            dynamic_shapes=dict.fromkeys(("x", "delta", "B", "C"), sizes) if dynamic else None,
        )
    assert program is not None
    target.write_bytes(program.model_proto.SerializeToString())
    return _nodes(program.model_proto.graph)


def _nodes(graph: Any) -> int:
    bodies = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return len(graph.node) + sum(map(_nodes, bodies))


def litert_call(inputs: Inputs, target: Path) -> Call:
    """Converts the static form for LiteRT and returns a call of it on one thread.

    Raises:
        UserError: the converter or the runtime is not installed.
    """
    try:
        import litert_torch
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(f"--litert needs litert-torch and ai-edge-litert: {error}") from error
    arrays = (inputs.x, inputs.delta, inputs.B, inputs.C)
    module = CoreScan(inputs.A, "static").eval()
    with contextlib.redirect_stdout(sys.stderr):  # the converter prints its progress
        litert_torch.convert(module, tuple(torch.from_numpy(a) for a in arrays)).export(str(target))
    interpreter = Interpreter(str(target), num_threads=1)
    runner = interpreter.get_signature_runner()
    feeds = dict(zip(sorted(runner.get_input_details()), arrays, strict=True))
    return lambda: next(iter(runner(**feeds).values()))
