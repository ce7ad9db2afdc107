"""Times a model on a GPU: PyTorch eager, compiled and as a CUDA graph, and ONNX Runtime's CUDA provider.

    python benchmarks/gpu.py --model aasist-l
    python benchmarks/gpu.py --model aasist-l --onnx out/aasist-l-batch.onnx --json gpu.json

Batches of 1 to 256 clips, random weights unless --checkpoint says otherwise. Times are of the whole call with
the clips already on the GPU, from CUDA's own events for PyTorch, and by the clock around runs bound to GPU
memory for ONNX Runtime (--onnx takes a file exported with --dynamic-batch). Results are compared with PyTorch
on the processor. Float32 without TF32, so that the comparison is fair. A row that cannot run says why.

Where there is no GPU the command says so and exits with 2. This file has not run on a GPU yet.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from antispoof.errors import EXIT_DONE, UserError, one_line, run
from antispoof.manifest import describe_file
from antispoof.manifest_reader import read_manifest
from antispoof.models import Detector, model_names
from antispoof.outputs import refuse_existing
from antispoof.pretrained import load_pretrained
from antispoof.speechlike import speech_like_batch
from benchmarks.results_file import gather_conditions, write_results
from benchmarks.timing.ratios import percentiles
from export.graph import ScoreGraph
from runtimes.ort import open_session

KIND = "gpu"
BATCHES = (1, 4, 16, 64, 256)
WARM_UP = 10
DISTINCT_CLIPS = 8

Row = dict[str, Any]
Call = Callable[[], Any]


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="gpu.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model", choices=model_names(), default="aasist-l", help="default aasist-l")
    p.add_argument("--checkpoint", default="random", metavar="FILE", help="weights (default random)")
    p.add_argument("--onnx", type=Path, metavar="FILE", help="the same model, exported with --dynamic-batch")
    p.add_argument("--repeats", type=int, default=100, metavar="N", help="measured runs (default 100)")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def require_gpu() -> str:
    """Returns the GPU's name.

    Raises:
        UserError: There is none that PyTorch can use.
    """
    if not torch.cuda.is_available():
        raise UserError("no GPU that this PyTorch can use: nothing was measured")
    return torch.cuda.get_device_name()


def eager(graph: Callable[[Tensor], Tensor], clips: Tensor) -> tuple[Call, Call]:
    """Returns a run in eager PyTorch, and what reads its scores."""
    result: list[Tensor] = []

    def call() -> None:
        result[:] = [graph(clips)]

    return call, lambda: result[0].cpu().numpy()


def compiled(graph: ScoreGraph, clips: Tensor) -> tuple[Call, Call]:
    """Returns a run of the compiled network, made anew for every batch size."""
    torch._dynamo.reset()
    return eager(torch.compile(graph, dynamic=False), clips)


def cuda_graph(graph: ScoreGraph, clips: Tensor) -> tuple[Call, Call]:
    """Returns the replay of a captured run: no launch costs but one."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a capture must find every library set up
        for _ in range(3):
            graph(clips)
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        scores = graph(clips)
    return captured.replay, lambda: scores.cpu().numpy()


def onnx_cuda(path: Path, clips: Tensor) -> tuple[Call, Call]:
    """Returns a run of ONNX Runtime's CUDA provider on clips that lie in GPU memory already.

    Raises:
        UserError: The provider is missing, or the file has a fixed batch.
    """
    manifest = read_manifest(path)
    if manifest.input.batch is not None and manifest.input.batch != len(clips):
        raise UserError("exported for a fixed batch; export it with --dynamic-batch")
    session = open_session(path.read_bytes(), threads=1, providers=("CUDAExecutionProvider",))
    binding = session.io_binding()
    binding.bind_input(
        manifest.input.name, "cuda", 0, np.float32, tuple(clips.shape), clips.contiguous().data_ptr()
    )
    binding.bind_output(manifest.output.name, "cuda")
    torch.cuda.synchronize()
    return lambda: session.run_with_iobinding(binding), lambda: binding.copy_outputs_to_cpu()[0]


def event_times(call: Call, repeats: int) -> list[float]:
    """Returns the milliseconds of each call on the GPU's own clock."""
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for begin, end in events:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in events]


def clock_times(call: Call, repeats: int) -> list[float]:
    """Returns the milliseconds of each call by the clock; for calls that return when they are done."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def measure(
    name: str, prepare: Callable[[], tuple[Call, Call]], reference: np.ndarray, batch: int, repeats: int
) -> Row:
    """Returns the row of one way at one batch size; why there are no figures, where it cannot run."""
    row: Row = {"label": name, "batch": batch}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        call, scores = prepare()
        for _ in range(WARM_UP):
            call()
        torch.cuda.synchronize()
        times = (clock_times if name == "onnxruntime" else event_times)(call, repeats)
        difference = float(np.abs(scores().astype(np.float64) - reference).max())
    except (UserError, RuntimeError) as error:  # out of memory is one of the latter
        return row | {"failed": one_line(error)[:200]}
    figures = percentiles(times)
    row |= {"ms": figures, "clips_per_s": 1e3 * batch / (figures["p50"] or np.inf), "parity": difference}
    if name != "onnxruntime":  # which has memory of its own that PyTorch does not see
        row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return row


def rows_of(detector: Detector, onnx: Path | None, repeats: int) -> Iterator[Row]:
    """Yields a row for each way and batch size."""
    clips = speech_like_batch(DISTINCT_CLIPS, detector.clip_samples)
    graph = ScoreGraph(detector).eval()
    with torch.inference_mode():
        expected = graph(torch.from_numpy(clips)).numpy()
        graph = graph.cuda()
        for batch in BATCHES:
            given = torch.from_numpy(np.resize(clips, (batch, clips.shape[1]))).cuda()
            reference = np.resize(expected, batch)
            ways: dict[str, Callable[[], tuple[Call, Call]]] = {
                way.__name__: lambda way=way, given=given: way(graph, given)  # type: ignore[misc]
                for way in (eager, compiled, cuda_graph)
            }
            if onnx:
                ways["onnxruntime"] = lambda given=given: onnx_cuda(onnx, given)  # type: ignore[misc]
            for name, prepare in ways.items():
                yield measure(name, prepare, reference, batch, repeats)


def line(row: Row) -> str:
    """Returns a row as text."""
    head = f"{row['label']:<12} {row['batch']:>5}"
    if "failed" in row:
        return f"{head}  failed: {row['failed']}"
    memory = f"{row['peak_mib']:.0f} MiB" if "peak_mib" in row else ""
    return (
        f"{head}  {row['ms']['p50']:>9.3f} ms  {row['clips_per_s']:>9.1f} clips/s  "
        f"parity {row['parity']:.1e}  {memory}"
    ).rstrip()


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.repeats < 1:
        raise UserError("--repeats takes at least 1")
    device = require_gpu()
    if args.json:
        refuse_existing(args.json, args.force)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    detector = load_pretrained(args.checkpoint, args.model).detector
    rows = []
    for row in rows_of(detector, args.onnx, args.repeats):
        print(line(row), flush=True)
        rows.append(row)
    if args.json:
        conditions = gather_conditions() | {
            "gpu": device,
            "cuda": torch.version.cuda,
            "model": args.model,
            "onnx": describe_file(args.onnx).sha256 if args.onnx else None,
        }
        write_results(args.json, KIND, conditions, rows, args.force)
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
