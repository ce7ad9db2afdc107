"""Times one Bi-Mamba block in ONNX Runtime, as published and as written here.

    python benchmarks/bimamba_block.py [--frames 201] [--runs 200] [--out FILE] [--force]

The variants compute the same numbers from the same weights with the same scan; all take turns, so that
whatever else the machine does hits them alike. Times are processor time of one thread.

    as published      Mamba twice, on flipped frames the second time; grouped Conv; Softplus
    own, Softplus     projections and gate shared by the directions, nothing flipped, shifted products
                      for the convolution; still Softplus
    own               and softplus out of Exp and Log, which have vector kernels
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from antispoof.errors import CheckFailed, run
from antispoof.models.layers.bimamba import BiMambaBlock
from antispoof.outputs import refuse_existing
from antispoof.scan import scan_form, selective_scan
from benchmarks.results_file import gather_conditions, write_results

KIND = "bimamba-block"
RESULTS = Path(__file__).parent / "results" / f"{KIND}.json"
WIDTH = 144  # of the dual-stream models
WARM_UP = 10
# The variants add the same float32 numbers in other orders; outputs are of the order of 1.
SAME_NUMBERS = 1e-4


class PublishedBlock(nn.Module):
    """`BiMambaBlock` with each operation where the published code has it, on the same weights."""

    def __init__(self, block: BiMambaBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, frames, width)`` for ``x (batch, frames, width)``."""
        normed = self.block.norm1(x)
        mixed = self._mamba(normed) + self._mamba(normed.flip(1)).flip(1)
        return x + self.block.feed_forward(self.block.norm2(mixed))

    def _mamba(self, x: Tensor) -> Tensor:
        m = self.block.mamba
        x, gate = m.in_proj(x).chunk(2, dim=-1)
        x = F.conv1d(x.transpose(1, 2), m.conv1d.weight, m.conv1d.bias, padding=3, groups=m.conv1d.groups)
        x = F.silu(x[:, :, :-3].transpose(1, 2))
        dt, b, c = m.x_proj(x).split([m.dt_rank, m.states, m.states], dim=-1)
        dt = F.linear(dt, m.dt_proj.weight)
        return m.out_proj(selective_scan(x, dt, -torch.exp(m.A_log), b, c, m.D, gate, m.dt_proj.bias))


def export(module: nn.Module, frames: int, native_softplus: bool) -> bytes:
    """Returns the ONNX file of a block for one sequence of ``frames``."""
    native = patch("antispoof.scan.exportable_softplus", F.softplus) if native_softplus else nullcontext()
    with native, scan_form("onnx"), torch.no_grad():
        program = torch.export.export(module, (torch.zeros(1, frames, WIDTH),), strict=False)
        onnx = torch.onnx.export(program, dynamo=True, input_names=["x"], verbose=False)
    assert onnx is not None
    return onnx.model_proto.SerializeToString()


def time_in_turns(files: dict[str, bytes], frames: int, runs: int) -> dict[str, np.ndarray]:
    """Returns the processor time of every run in ms, by variant, once all give the same numbers.

    Raises:
        CheckFailed: The outputs of two variants differ.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        for name, file in files.items()
    }
    x = np.random.default_rng(0).standard_normal((1, frames, WIDTH), dtype=np.float32)
    outputs = [session.run(None, {"x": x})[0] for session in sessions.values()]
    worst = max(float(np.abs(output - outputs[0]).max()) for output in outputs)
    if not worst <= SAME_NUMBERS:
        raise CheckFailed(f"the variants differ by {worst:.1e} (at most {SAME_NUMBERS:.0e})")
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in tqdm(range(WARM_UP + runs), desc="rounds", disable=None, file=sys.stderr):
        for name, session in sessions.items():
            start = time.thread_time()
            session.run(None, {"x": x})
            times[name].append(1e3 * (time.thread_time() - start))
    return {name: np.array(values[WARM_UP:]) for name, values in times.items()}


def summarise(name: str, file: bytes, times: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """Returns the row of one variant; the ratio is how many times as fast as the base it is."""
    p50, p90, p99 = (round(float(p), 4) for p in np.percentile(times, [50, 90, 99]))
    return {
        "variant": name,
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "times_as_fast": round(float(np.median(base / times)), 3),
        "bytes": len(file),
        "sha256": hashlib.sha256(file).hexdigest(),
    }


def main(argv: list[str] | None = None) -> int:
    """Measures, prints a table and writes the results file."""
    parser = argparse.ArgumentParser(prog="bimamba_block", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=201, help="length of the sequence (default 201)")
    parser.add_argument("--runs", type=int, default=200, help="measured runs of each variant (default 200)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file")
    parser.add_argument("--force", action="store_true", help="replace an existing results file")
    args = parser.parse_args(argv)
    refuse_existing(args.out, args.force)
    torch.manual_seed(0)
    block = BiMambaBlock(WIDTH).eval()
    files = {
        "as published": export(PublishedBlock(block), args.frames, native_softplus=True),
        "own, Softplus": export(block, args.frames, native_softplus=True),
        "own": export(block, args.frames, native_softplus=False),
    }
    times = time_in_turns(files, args.frames, args.runs)
    rows = [summarise(name, file, times[name], times["as published"]) for name, file in files.items()]
    conditions = {
        **gather_conditions(),
        "clock": "processor time of the calling thread",
        "input": [1, args.frames, WIDTH],
        "warm_up_rounds": WARM_UP,
        "rounds": args.runs,
    }
    write_results(args.out, KIND, conditions, rows, force=args.force)
    for row in rows:
        ratio = f"{row['times_as_fast']:.2f} times as fast as published"
        print(f"{row['variant']:<16}{row['p50_ms']:8.3f} ms  {ratio}")
    return 0


if __name__ == "__main__":
    run(main)
