"""Times every form of the selective scan against one fused C loop, its practical limit on a CPU.

    python benchmarks/scan_limit.py [--shape 1,201,256 ...] [--rounds 60] [--litert] [--json FILE] [--force]

Shapes are batch,length,channels, always with 16 states. What is timed is C . h from x, delta, A, B and C:
softplus, skip and gate are outside, in the kernel as in every form. All candidates of a shape take turns
in one thread, each with an untimed run right before; times are processor time of that thread, ratios are
taken within each round against the fastest build of the kernel. Peak memory is what running a file needs
above the loaded model, from a process of its own.

Two more rows say what ONNX's Scan cannot be faster than in ONNX Runtime, whatever its body: the same Scan of
a single channel, which calls its operations and gives them next to nothing to do, and a Scan whose body is
one product of the state with a constant, where the exact one has five passes over it, one an exponential.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from antispoof.errors import CheckFailed, UserError, run
from antispoof.lowering import ScanForm
from antispoof.outputs import refuse_existing
from antispoof.scan import FORMS
from benchmarks.results_file import gather_conditions, write_results
from benchmarks.scan_candidates import (
    BUILDS,
    COMPILE,
    build_kernels,
    compiler_version,
    export_onnx,
    export_product,
    kernel_call,
    litert_call,
    torch_call,
)
from benchmarks.scan_ort import STATES, Call, Inputs, Shape, draw, ort_call, peak_mib
from benchmarks.timing.harness import order_of_round
from benchmarks.timing.ratios import ratio_interval

KIND = "scan-limit"
SHAPES = ((1, 67, 256), (1, 201, 128), (1, 201, 256), (1, 402, 256), (1, 1000, 256), (8, 201, 256))
WARM_UP = 5  # rounds
TOLERANCE = 5e-6  # of the largest output, for every candidate against float64


def candidates(
    shape: Shape, kernels: dict[str, ctypes.CDLL], folder: Path, litert: bool
) -> tuple[dict[str, Call], dict[str, dict[str, Any]]]:
    """Returns what takes turns at one shape, and what is known of each beside its times."""
    inputs = draw(shape)
    calls = {name: kernel_call(library, inputs) for name, library in kernels.items()}
    forms: tuple[ScanForm, ...] = ("reference", "eager", "static")
    calls |= {f"torch {form}": torch_call(form, inputs) for form in forms}
    facts: dict[str, dict[str, Any]] = {}
    files: tuple[tuple[str, ScanForm, bool], ...] = (
        ("ort scan", "onnx", False),
        ("ort scan, dynamic", "onnx", True),
        ("ort static", "static", False),
    )
    for name, form, dynamic in files:
        path = folder / "-".join(map(str, (form, dynamic, *shape)))
        nodes = export_onnx(form, inputs, path, dynamic)
        calls[name] = ort_call(path, inputs)
        facts[name] = {"nodes": nodes, "peak_mib": peak_mib(path, shape)}
    if litert:
        calls["litert static"] = litert_call(inputs, folder / "static.tflite")
    x, delta, A, B, C = (torch.from_numpy(array).double() for array in inputs)
    expected = FORMS["reference"](x, delta, A, B, C, False).numpy()
    for name, call in calls.items():
        error = float(np.abs(call() - expected).max() / np.abs(expected).max())
        if not error <= TOLERANCE:
            raise CheckFailed(f"{name} at {shape} is off by {error:.1e} (at most {TOLERANCE:.0e})")
        facts.setdefault(name, {})["max_error"] = error
    return calls | floors(inputs, folder), facts


def floors(inputs: Inputs, folder: Path) -> dict[str, Call]:
    """Returns Scans that do less than the selective scan, in as many steps."""
    one = inputs._replace(x=inputs.x[..., :1], delta=inputs.delta[..., :1], A=inputs.A[:1])
    export_onnx("onnx", one, folder / "one-channel")
    export_product(inputs, folder / "product")
    return {
        "ort scan of 1 channel": ort_call(folder / "one-channel", one),
        "ort scan, 1 product": ort_call(folder / "product", inputs),
    }


def time_in_turns(calls: Sequence[Call], rounds: int, label: str) -> np.ndarray:
    """Returns the processor time in ms of every call in every round, (calls, rounds)."""
    times = np.empty((len(calls), WARM_UP + rounds))
    for index in tqdm(range(WARM_UP + rounds), desc=label, disable=None, file=sys.stderr):
        for position in order_of_round(index, len(calls)):
            calls[position]()  # untimed: what the one before left in the caches is not its doing
            start = time.thread_time()
            calls[position]()
            times[position, index] = 1e3 * (time.thread_time() - start)
    return times[:, WARM_UP:]


def measure(shape: Shape, kernels: dict[str, ctypes.CDLL], rounds: int, litert: bool) -> list[dict[str, Any]]:
    """Returns one row per candidate at one shape."""
    with tempfile.TemporaryDirectory() as folder:
        calls, facts = candidates(shape, kernels, Path(folder), litert)
        times = dict(zip(calls, time_in_turns(list(calls.values()), rounds, str(shape)), strict=True))
    best = min(kernels, key=lambda name: float(np.median(times[name])))
    rows = []
    for name, values in times.items():
        ratio = ratio_interval(values, times[best])
        median = float(np.median(values))
        rows.append(
            {
                "shape": list(shape),
                "candidate": name,
                "p50_ms": round(median, 4),
                "us_per_step": round(1e3 * median / (shape[0] * shape[1]), 4),
                "ratio": round(ratio.estimate, 3),
                "ratio_interval": [round(ratio.low, 3), round(ratio.high, 3)],
                **facts.get(name, {}),
            }
        )
    return rows


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Prints one line per row, with a blank line between shapes."""
    print(
        f"{'shape':<14}{'candidate':<23}{'ms':>9}{'us/step':>9}{'x C':>8}{'nodes':>7}{'MiB':>7}{'error':>9}"
    )
    last = None
    for row in rows:
        shape = ",".join(map(str, row["shape"]))
        if last not in (None, shape):
            print()
        last = shape
        peak = row.get("peak_mib")
        nodes, peak = row.get("nodes", ""), "" if peak is None else f"{peak:.1f}"
        error = f"{row['max_error']:.1e}" if "max_error" in row else ""
        times = f"{row['p50_ms']:9.3f}{row['us_per_step']:9.2f}{row['ratio']:8.2f}"
        print(f"{shape:<14}{row['candidate']:<23}{times}{nodes:>7}{peak:>7}{error:>9}")


def parse_shape(text: str) -> Shape:
    """Returns ``batch,length,channels`` as numbers."""
    sizes = [int(size) if size.isdecimal() else 0 for size in text.split(",")]
    if len(sizes) != 3 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not batch,length,channels such as 1,201,256")
    return sizes[0], sizes[1], sizes[2]


def main(argv: list[str] | None = None) -> int:
    """Measures, prints a table and, where asked, writes a results file."""
    parser = argparse.ArgumentParser(prog="scan_limit", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--shape", type=parse_shape, action="append", metavar="B,L,D", help="repeatable (default: six)"
    )
    parser.add_argument("--rounds", type=int, default=60, help="measured runs of each candidate (default 60)")
    parser.add_argument("--litert", action="store_true", help="also the static form in LiteRT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and their conditions here")
    parser.add_argument("--force", action="store_true", help="replace an existing results file")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        raise UserError("--rounds must be at least 1")
    if args.json:
        refuse_existing(args.json, args.force)
    torch.set_num_threads(1)
    conditions = gather_conditions()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        kernels = build_kernels(Path(folder), conditions["cpu"]["flags"])
        for shape in args.shape or SHAPES:
            rows += measure(shape, kernels, args.rounds, args.litert)
    conditions |= {
        "clock": "processor time of the calling thread",
        "states": STATES,
        "warm_up_rounds": WARM_UP,
        "rounds": args.rounds,
        "compiler": compiler_version(),
        "compile_flags": {name: [*COMPILE, *flags] for name, (flags, _) in BUILDS.items() if name in kernels},
    }
    if args.json:
        write_results(args.json, KIND, conditions, rows, force=args.force)
    print_table(rows)
    return 0


if __name__ == "__main__":
    run(main)
