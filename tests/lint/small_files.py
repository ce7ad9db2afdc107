"""Small model files as public code writes them, without a manifest, and what lint says of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from export.findings import Finding
from export.lint import Report

SAMPLES = 64_600


def value(name: str, shape: list[int | str] | None) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], **constants: np.ndarray
) -> Path:
    """Writes an ONNX file as public code would: no manifest, no facts."""
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def tflite_file(path: Path, *kinds: str) -> Path:
    """Writes a chain of operations on four numbers; what gives truth values is cast back."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    model.subgraphs, graph.tensors, graph.operators = [graph], [], []
    steps = [step for kind in kinds for step in ([kind, "CAST"] if kind == "EQUAL" else [kind])]
    for index in range(len(steps) + 1):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = f"t{index}", [1, 4], 0
        truth = index and steps[index - 1] == "EQUAL"
        tensor.type = schema.TensorType.BOOL if truth else schema.TensorType.FLOAT32
        graph.tensors.append(tensor)
    for index, kind in enumerate(steps):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        model.operatorCodes.append(code)
        operator.opcodeIndex, operator.outputs = index, [index + 1]
        operator.inputs = [index, index] if kind in ("ADD", "EQUAL", "MUL") else [index]
        if kind in ("ADD", "MUL"):
            options = {"ADD": schema.AddOptionsT, "MUL": schema.MulOptionsT}[kind]()
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
            operator.builtinOptions = options
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [len(steps)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def found(report: Report, check: str) -> dict[str, Finding]:
    return {finding.what: finding for finding in report.findings if finding.check == check}
