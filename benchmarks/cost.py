"""Counts what a model computes, layer by layer, and says how far its time is from the machine's limit.

    python benchmarks/cost.py out/aasist-l.onnx
    python benchmarks/cost.py weights.pth --model aasist-l --by kind
    python benchmarks/cost.py aasist --no-time --json cost.json

MODEL is a model file, a checkpoint (run in eager mode), or a model's name, for the network with random
weights. Shown are the layers with the most multiply-adds; live is all that is in memory while one runs.

GFLOP/s count two operations for each multiply-add and nothing else, over the fastest of --runs runs of one
clip with one thread, in processor time. The limit is a large float32 matrix product, run in turn with the
model by PyTorch and by ONNX Runtime, where it is installed; the faster one counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from antispoof.checkpoint import load_model
from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.formats import format_of
from antispoof.graph_cost import Graph, total_cost
from antispoof.manifest import describe_file
from antispoof.memory import keep_freed_memory
from antispoof.models import Detector, create_model, model_names
from antispoof.outputs import refuse_existing
from antispoof.speechlike import speech_like
from benchmarks.layer_costs import Layer, by_kind, graph_layers, merged, module_layers
from benchmarks.results_file import gather_conditions, write_results
from benchmarks.timing.machine_limit import Speed, time_against_limit
from benchmarks.timing.subjects import open_subject
from runtimes.graphs import read_graph

KIND = "cost"
TOP = 20


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("subject", metavar="MODEL", help="a model file, or a model's name")
    p.add_argument("--model", choices=model_names(), help="which network, for a checkpoint")
    p.add_argument("--by", choices=("layer", "kind"), default="layer", help="rows (default layer)")
    p.add_argument("--top", type=int, default=TOP, metavar="N", help=f"rows shown (default {TOP}; 0: all)")
    p.add_argument("--runs", type=int, default=5, metavar="N", help="timed runs (default 5)")
    p.add_argument("--no-time", action="store_true", help="only count; nothing is timed")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write every layer to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def network(subject: str, model: str | None) -> Detector | None:
    """Returns the PyTorch network that is meant; None where it is an exported file.

    Raises:
        UserError: There is neither a file nor a model of that name.
    """
    path = Path(subject)
    if not path.exists():
        if subject not in model_names():
            raise UserError(f"{subject} is no file and no model; there are: {', '.join(model_names())}")
        return create_model(subject).eval()
    if format_of(path).name == "torch":
        return load_model(path, model).eval()
    if model:
        raise UserError("--model is for checkpoints; this file says itself what it is")
    return None


def counted(graph: Graph, subject: str) -> Graph:
    """Returns the graph, of which all can be counted.

    Raises:
        UserError: Operations have no shape, and so no part in any sum.
    """
    if unknown := total_cost(graph.nodes, graph.values).unknown:
        raise UserError(
            f"{subject}: {unknown} of {len(graph.nodes)} operations have a shape that only a run decides, "
            "so what they compute cannot be counted"
        )
    return graph


def runner(subject: str, detector: Detector | None) -> Callable[[], Any]:
    """Returns what runs one speech-like clip."""
    if detector is None:
        opened = open_subject(Path(subject), threads=1)
        clips = np.broadcast_to(speech_like(0, opened.shape[-1]), opened.shape).copy()
        return lambda: opened.run(clips)
    keep_freed_memory()
    waveform = torch.from_numpy(speech_like(0, detector.clip_samples))[None]

    def score() -> torch.Tensor:
        with torch.inference_mode():
            return detector.score(detector(waveform))

    return score


def table(layers: list[Layer], top: int) -> str:
    """Returns the dearest layers and the sum of all as text."""
    shown = sorted(layers, key=lambda layer: -layer.macs)[: top or None]
    total = merged("total", f"{len(layers)}", layers)
    head = ("layer", "kind", "million MAC", "share", "parameters", "written MiB", "live MiB")
    rows = [head, *(_cells(layer, max(total.macs, 1)) for layer in (*shown, total))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if at < 2 else f"{cell:>{width}}" for at, (cell, width) in enumerate(pairs)
        )
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )


def _cells(layer: Layer, macs: int) -> tuple[str, ...]:
    return (
        layer.name,
        layer.kind,
        f"{layer.macs / 1e6:,.2f}",
        f"{layer.macs / macs:.1%}",
        f"{layer.parameters:,}",
        f"{layer.bytes_written / 2**20:.2f}",
        f"{layer.live_bytes / 2**20:.2f}",
    )


def speed_line(speed: Speed) -> str:
    """Returns the distance to the limit as text."""
    library, limit = speed.limit
    return (
        f"{1e3 * speed.seconds:.1f} ms a clip: {speed.gflops:.1f} GFLOP/s, {speed.share:.0%} of the "
        f"{limit:.1f} that a matrix product reaches here in {library}"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.runs < 1 or args.top < 0:
        raise UserError("--runs takes at least 1, --top at least 0")
    if args.json:
        refuse_existing(args.json, args.force)
    detector = network(args.subject, args.model)
    if detector is None:
        layers = graph_layers(counted(read_graph(args.subject), args.subject))
    else:
        layers = module_layers(detector, detector.example_input())
    macs = sum(layer.macs for layer in layers)
    speed = None if args.no_time else time_against_limit(runner(args.subject, detector), macs, args.runs)
    if args.json:
        path = Path(args.subject)
        conditions = gather_conditions() | {
            "model": asdict(describe_file(path)) if path.exists() else args.subject,
            "macs": macs,
            "speed": None if speed is None else asdict(speed),
        }
        write_results(args.json, KIND, conditions, [asdict(layer) for layer in layers], args.force)
    print(table(by_kind(layers) if args.by == "kind" else layers, args.top))
    if speed:
        print(f"\n{speed_line(speed)}")
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
