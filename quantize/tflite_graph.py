"""A TFLite graph as far as quantization looks at it: its layers, their scope, and what its tensors hold."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from quantize.calibration import Histogram
from quantize.scope import LINEAR_WEIGHTS, Step, hearing
from runtimes.litert import open_interpreter
from runtimes.tflite_bytes import packed, schema, unpacked

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
REARRANGING = ("RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "SQUEEZE", "EXPAND_DIMS", "PAD")

# With "mixed", the smallest layers stay float, as many as do no more than this share of the work together.
# In float it takes LiteRT about twice as long, so a fifth of the speed-up is the price.
MIXED_SHARE = 0.2


class TfliteGraph:
    """The one graph of a file, without changing it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.model = unpacked(content)
        (self.graph,) = self.model.subgraphs
        codes = {code: name for name, code in vars(schema().BuiltinOperator).items() if isinstance(code, int)}
        self._kinds = [codes[code.builtinCode] for code in self.model.operatorCodes]

    def kind(self, node: Any) -> str:
        """Returns the type of an operation, such as ``CONV_2D``."""
        return self._kinds[node.opcodeIndex]

    def name(self, tensor: int) -> str:
        """Returns the name of a tensor, of which each has its own."""
        return str(self.graph.tensors[tensor].name.decode())

    def is_constant(self, tensor: int) -> bool:
        """Whether a tensor's values are stored in the file."""
        data = self.model.buffers[self.graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0

    def front_end(self) -> list[Any]:
        """Returns the layers that hear the waveform."""
        steps = [
            Step(node.inputs, node.outputs, self._is_layer(node), self.kind(node) in REARRANGING)
            for node in self.graph.operators
        ]
        return [self.graph.operators[index] for index in sorted(hearing(steps, self.graph.inputs[0]))]

    def takes_powers(self) -> bool:
        """Whether what the front end gives is squared: it is a Fourier transform then, not a filter bank."""
        heard = {node.outputs[0] for node in self.front_end()}
        for node in self.graph.operators:
            if node.inputs[0] in heard:
                if self.kind(node) in REARRANGING:
                    heard.update(node.outputs)
                elif self.kind(node) == "SQUARE" or (self.kind(node) == "MUL" and len(set(node.inputs)) == 1):
                    return True
        return False

    def layers_in_scope(self, mixed: bool = False) -> list[Any]:
        """Returns the operations to quantize: convolutions and large projections.

        Depthwise convolutions stay float: XNNPACK has no dynamic kernel for them, and AASIST's first one
        reads the map that has the range of the waveform.

        Args:
            mixed: Leave out the small ones, which together do little of the work.
        """
        heard = {id(node) for node in self.front_end()}
        chosen = [
            node
            for node in self.graph.operators
            if id(node) not in heard and self._is_layer(node) and self._is_worth_it(node)
        ]
        return self._large(chosen) if mixed else chosen

    def _large(self, layers: Sequence[Any]) -> list[Any]:
        """Returns the layers without the small ones; tiles, which share their weights, are one layer."""
        work: Counter[int] = Counter()
        for node in layers:
            made, weights = (self.graph.tensors[tensor] for tensor in (node.outputs[0], node.inputs[1]))
            work[weights.buffer] += int(np.prod(made.shape)) * int(np.prod(weights.shape[1:]))
        allowed = MIXED_SHARE * sum(work.values())
        small = {
            weights
            for weights, own in work.items()
            if sum(other for other in work.values() if other <= own) <= allowed
        }
        return [node for node in layers if self.graph.tensors[node.inputs[1]].buffer not in small]

    def _is_layer(self, node: Any) -> bool:
        return self.kind(node) in WEIGHTED and self.is_constant(node.inputs[1])

    def _is_worth_it(self, node: Any) -> bool:
        large = int(np.prod(self.graph.tensors[node.inputs[1]].shape)) >= LINEAR_WEIGHTS
        return self.kind(node) == "CONV_2D" or (self.kind(node) == "FULLY_CONNECTED" and large)

    def histograms(self, nodes: Iterable[Any], clips: np.ndarray) -> dict[str, Histogram]:
        """Returns the values of what some layers read and give, over ``clips (clips, samples)``, by tensor.

        Where layers share their weights, as in tiles of time, their tensors share a histogram: they are one
        tensor in pieces.
        """
        places = {
            (node.inputs[0], node.outputs[0]): self.graph.tensors[node.inputs[1]].buffer for node in nodes
        }
        shared = {buffer: (Histogram(), Histogram()) for buffer in places.values()}
        wanted = {
            tensor: histogram
            for tensors, buffer in places.items()
            for tensor, histogram in zip(tensors, shared[buffer], strict=True)
        }
        for tensor, values in self._values(list(wanted), clips):
            wanted[tensor].add(values)
        return {self.name(tensor): histogram for tensor, histogram in wanted.items()}

    def _values(self, tensors: Sequence[int], clips: np.ndarray) -> Iterable[tuple[int, np.ndarray]]:
        """Yields every value of the tensors, which are made outputs of a copy in memory."""
        model = unpacked(self.content)
        model.subgraphs[0].outputs = np.array(tensors, np.int32)
        model.signatureDefs = []
        interpreter = open_interpreter(packed(model), threads=1)
        entry = interpreter.get_input_details()[0]["index"]
        for clip in clips:
            interpreter.set_tensor(entry, clip[None])
            interpreter.invoke()
            for tensor, output in zip(tensors, interpreter.get_output_details(), strict=True):
                yield tensor, interpreter.get_tensor(output["index"])


def add_offset(model: Any, offset: float) -> None:
    """Makes a ``ModelT`` add a constant to its score."""
    classes = schema()
    (graph,) = model.subgraphs
    score = graph.outputs[0]
    raw, constant = copy.copy(graph.tensors[score]), copy.copy(graph.tensors[score])
    raw.name, constant.name = b"score.uncorrected", b"score.offset"
    raw.buffer, constant.buffer = 0, len(model.buffers)
    stored = classes.BufferT()
    stored.data = np.frombuffer(np.full(raw.shape, offset, "<f4").tobytes(), np.uint8)
    model.buffers.append(stored)
    for node in graph.operators:
        node.outputs = [len(graph.tensors) if tensor == score else tensor for tensor in node.outputs]
    total = classes.OperatorT()
    total.opcodeIndex = _code(model, classes.BuiltinOperator.ADD)
    total.inputs, total.outputs = [len(graph.tensors), len(graph.tensors) + 1], [score]
    total.builtinOptionsType, total.builtinOptions = classes.BuiltinOptions.AddOptions, classes.AddOptionsT()
    graph.tensors += [raw, constant]
    graph.operators.append(total)


def _code(model: Any, operation: int) -> int:
    """Returns the number by which a file knows an operation, which it knows from then on."""
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == operation:
            return index
    code = schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = operation
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
