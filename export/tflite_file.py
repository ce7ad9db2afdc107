"""From a frozen detector to the bytes of a TFLite file: the same network always gives the same bytes.

litert-torch converts. What it leaves undone is done to its result: the file says what its input and
output are, and nothing about the machine and the Python classes that it was made from.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from antispoof.errors import UserError
from antispoof.formats import format_named
from antispoof.lowering import lowering
from antispoof.manifest import Manifest
from antispoof.models import freeze
from antispoof.native_log import silent_stderr
from export.bisection import NoRule
from export.graph import INPUT_NAME, OUTPUT_NAME, ScoreGraph
from export.litert_lowering import elu_as_one_operation
from runtimes.litert import open_interpreter
from runtimes.tflite_bytes import embedded, packed, schema, unpacked

NO_RULE = re.compile(r"Lowering not found: (\S+)")
MAX_JOINED = 5  # tensors that XNNPACK concatenates in one operation


def convert(graph: ScoreGraph) -> Any:
    """Returns the network as a TFLite ``ModelT``, for one clip at a time.

    Raises:
        UserError: litert-torch is not installed.
    """
    # Frozen again: what folds depends on the lowering.
    model = _model(lambda: ScoreGraph(graph.detector), (graph.detector.example_input(1),))
    _describe(model)
    _drop_empty_buffers(model)
    return model


def run_part(part: nn.Module, inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    """Exports a part of a network, for inputs like these, and returns what the file makes of them."""

    def frozen() -> nn.Module:
        freeze(part)
        return part

    model = _model(frozen, inputs)
    run = open_interpreter(packed(model), threads=1).get_signature_runner()
    outputs = run(**{f"args_{index}": x.numpy() for index, x in enumerate(inputs)})
    return [outputs[f"output_{index}"] for index in range(len(outputs))]


def _model(network: Callable[[], nn.Module], example: tuple[Tensor, ...]) -> Any:
    """Converts what ``network`` makes while TFLite's lowering is in force."""
    with silent_stderr(), warnings.catch_warnings():
        # Warnings and logs about the converter's own internals; the file is checked by running it.
        warnings.simplefilter("ignore")
        try:
            import litert_torch
        except ImportError as error:
            raise UserError(f"{error.name} is not installed: pip install 'antispoof[tflite]'") from error
        litert_torch.config.show_progress = False
        with lowering(format_named("tflite").lowering), elu_as_one_operation():
            content = _content(litert_torch, network().eval(), example)
    model = unpacked(content)
    _split_joins(model)
    return model


def _content(litert_torch: Any, network: nn.Module, example: tuple[Tensor, ...]) -> Any:
    try:
        return litert_torch.convert(network, example).model_content()
    except RuntimeError as error:
        unknown = NO_RULE.search(str(error))
        if unknown is None:
            raise
        raise NoRule("TFLite's converter", unknown[1]) from error


def _split_joins(model: Any) -> None:
    """Joins in steps what is joined at once of more tensors than XNNPACK takes, as many tiles of time are."""
    (graph,) = model.subgraphs
    join = schema().BuiltinOperator.CONCATENATION
    operators = []
    for node in graph.operators:
        while model.operatorCodes[node.opcodeIndex].builtinCode == join and len(node.inputs) > MAX_JOINED:
            part = copy.copy(node)
            part.inputs, rest = node.inputs[:MAX_JOINED], node.inputs[MAX_JOINED:]
            part.outputs = np.array([len(graph.tensors)], np.int32)
            graph.tensors.append(_joined(graph, part))
            operators.append(part)
            node.inputs = np.concatenate([part.outputs, rest])
        operators.append(node)
    graph.operators = operators


def _joined(graph: Any, node: Any) -> Any:
    """Returns the tensor that a concatenation makes."""
    parts = [graph.tensors[index] for index in node.inputs]
    whole = copy.copy(parts[0])
    whole.buffer = 0  # it is computed, even where the first part is a constant
    whole.shape = parts[0].shape.copy()
    whole.shape[node.builtinOptions.axis] = sum(part.shape[node.builtinOptions.axis] for part in parts)
    return whole


def _describe(model: Any) -> None:
    """Names input, output and tensors by their layers, and drops fields that say nothing.

    A plain conversion spends a fifth of AASIST-L's file on the names of Python classes.
    """
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    model.description = "antispoof"
    for index, tensor in enumerate(graph.tensors):
        # The index makes names unique, which the quantizer relies on.
        tensor.name = f"{_layer(tensor.name.decode())}:{index}"
        tensor.quantization = None  # of float32 tensors it is empty
    for (end,), name, (index,) in (
        (signature.inputs, INPUT_NAME, graph.inputs),
        (signature.outputs, OUTPUT_NAME, graph.outputs),
    ):
        end.name = graph.tensors[index].name = name


def _layer(location: str) -> str:
    """Returns ``encoder.0.conv1`` for the path of classes and attributes that leads to that layer."""
    steps = [step for step in location.partition(";")[0].split("/") if "." in step]
    # A step is package.module.Class_attribute, and Class alone for the outermost.
    attributes = [re.sub(r"^.*\.[A-Za-z0-9]+_?", "", step) for step in steps]
    return ".".join(name for name in attributes if name not in ("", "detector")) or "x"


def _drop_empty_buffers(model: Any) -> None:
    """Gives all tensors without constant data the first buffer, which is empty by convention."""
    kept = [0]
    for user in [*model.subgraphs[0].tensors, *model.metadata]:
        data = model.buffers[user.buffer].data
        if data is None or not len(data):
            user.buffer = 0
            continue
        if user.buffer not in kept:
            kept.append(user.buffer)
        user.buffer = kept.index(user.buffer)
    model.buffers = [model.buffers[index] for index in kept]


def embed(model: Any, manifest: Manifest) -> bytes:
    """Returns the file's bytes with the manifest's facts inside, as metadata called `FACTS_KEY`."""
    return embedded(model, manifest.facts())


def operations(model: Any) -> Counter[str]:
    """Returns how many operations of each type the network has."""
    names = {code: name for name, code in vars(schema().BuiltinOperator).items() if isinstance(code, int)}
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return Counter(codes[node.opcodeIndex] for node in model.subgraphs[0].operators)
