"""Which values the tensors inside a model file take on clips, whatever its format.

Values inside loops (an ONNX ``Scan``) are not seen, only what they give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, one_line
from antispoof.graph_cost import Graph
from runtimes.ort import open_session

# Half precision ends at 65504, keeps all its digits down to 6.1e-5 and nothing below 6e-8. A model that is
# right in float32 and wrong on a phone mostly meets one of the three somewhere.
LARGEST_HALF = 65504.0
SMALLEST_NORMAL_HALF = 2.0**-14
FLOATS = ("float16", "float32", "float64")
BUDGET = 256 << 20  # bytes of values that one run hands out


@dataclass(frozen=True)
class Span:
    """What values a tensor took over all clips.

    Attributes:
        kind: The kind of the operation that gives it.
        name: Its name.
        low: Its smallest value, NaN where there was one.
        high: Its largest.
        tiny: Largest share, over the clips, of values that are not 0 and below what half precision keeps
            all digits of.
    """

    kind: str
    name: str
    low: float
    high: float
    tiny: float

    @property
    def overflows(self) -> bool:
        """Whether half precision cannot hold it (a NaN counts)."""
        return not max(-self.low, self.high) <= LARGEST_HALF


def activation_spans(path: Path, graph: Graph, clips: np.ndarray) -> list[Span]:
    """Returns the span of every floating-point tensor that the nodes of a file give.

    Args:
        path: The file.
        graph: Its graph.
        clips: ``(clips, samples)``, as long as the graph takes them.

    Raises:
        UserError: The file cannot be run.
    """
    traced = {"onnx": _onnx_values, "tflite": _tflite_values, "coreml": _coreml_values}[graph.format]
    kinds = {name: node.kind for node in graph.nodes for name in node.outputs}
    wanted = [name for name in kinds if graph.values[name].dtype in FLOATS]
    spans: dict[str, Span] = {}
    for name, value in traced(path, graph, wanted, clips):
        if value.size:
            spans[name] = _wider(spans.get(name), _span(kinds[name], name, value))
    return list(spans.values())


def _span(kind: str, name: str, value: np.ndarray) -> Span:
    tiny = np.mean((value != 0) & (np.abs(value) < SMALLEST_NORMAL_HALF))
    return Span(kind, name, float(value.min()), float(value.max()), float(tiny))


def _wider(one: Span | None, two: Span) -> Span:
    if one is None:
        return two
    low, high = np.minimum(one.low, two.low), np.maximum(one.high, two.high)  # which keep NaN
    return Span(one.kind, one.name, float(low), float(high), max(one.tiny, two.tiny))


Values = Iterator[tuple[str, np.ndarray]]


def _onnx_values(path: Path, graph: Graph, wanted: list[str], clips: np.ndarray) -> Values:
    """Yields values of an ONNX graph, as many outputs at a time as fit into `BUDGET`."""
    import onnx

    model = onnx.load(path)
    for names in _batches(graph, wanted):
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = open_session(model.SerializeToString(), threads=1)
        for clip in clips:
            try:
                values = session.run(names, {graph.inputs[0]: clip[None]})
            except Exception as error:  # its exception types share no base but Exception
                raise UserError(f"{path}: cannot be run ({one_line(error)[:160]})") from error
            yield from zip(names, values, strict=True)


def _batches(graph: Graph, names: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for name in names:
        if batch and size + graph.values[name].bytes > BUDGET:
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += graph.values[name].bytes
    if batch:
        yield batch


def _tflite_values(path: Path, graph: Graph, wanted: list[str], clips: np.ndarray) -> Values:
    """Yields values of a TFLite graph, run by LiteRT's own kernels, which keep every tensor."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from antispoof.native_log import silent_stderr

    places = {name: int(name.rpartition("#")[2]) for name in (*graph.inputs, *wanted)}
    with silent_stderr():
        interpreter: Any = Interpreter(
            model_content=path.read_bytes(),
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
    for clip in clips:
        interpreter.set_tensor(places[graph.inputs[0]], clip[None])
        interpreter.invoke()
        for name in wanted:
            yield name, interpreter.get_tensor(places[name])


def _coreml_values(path: Path, graph: Graph, wanted: list[str], clips: np.ndarray) -> Values:
    """Yields values of an ML Program, run by the evaluator."""
    from runtimes.ml_program.evaluator import Evaluator
    from runtimes.ml_program.package import read_package

    evaluator, chosen = Evaluator(read_package(path)), set(wanted)
    ((entry, kind),) = evaluator.program.inputs
    for clip in clips:
        for result in evaluator.trace({entry: np.broadcast_to(clip, kind.shape)}):
            for (name, _), value in zip(result.operation.outputs, result.values, strict=True):
                if name in chosen:
                    yield name, value.numpy()
