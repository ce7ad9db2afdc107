"""A second witness of a TFLite file, where tf2onnx and TensorFlow are installed.

tf2onnx reads the finished file with a parser of its own and writes what it found as ONNX; ONNX Runtime
then scores it. A fault that litert-torch, LiteRT and XNNPACK might share, say in how they read a padding
or an axis, shows as a difference. (tf2onnx goes this way only; it cannot make a TFLite file.)
"""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, one_line
from antispoof.manifest import describe_file, manifest_path
from antispoof.manifest_reader import read_manifest
from runtimes import load
from runtimes.base import Runtime
from runtimes.tflite_bytes import packed, schema, unpacked

NEEDED = ("tensorflow", "tf2onnx")
OPSET = 18


def is_available() -> bool:
    """Says whether what turns a TFLite file back into ONNX is installed."""
    return all(importlib.util.find_spec(name) for name in NEEDED)


def turned_back(tflite: Path) -> Runtime:
    """Turns a TFLite file and its manifest into an ONNX file beside it, and opens that.

    Raises:
        UserError: tf2onnx knows an operation not, or ONNX Runtime takes not what it wrote.
    """
    target = tflite.with_name(f"{tflite.name}.witness.onnx")
    given = tflite.with_name(f"{tflite.name}.witness.tflite")
    model = unpacked(tflite.read_bytes())
    _add_biases_apart(model)
    given.write_bytes(packed(model))
    # A process of its own: TensorFlow brings its own threads, logs and versions of what we have loaded.
    command = [
        "-m",
        "tf2onnx.convert",
        "--tflite",
        str(given),
        "--output",
        str(target),
        "--opset",
        str(OPSET),
    ]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode or not target.exists():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"tf2onnx cannot read {tflite.name}: {one_line(last)}")
    manifest = replace(read_manifest(tflite), format="onnx", file=describe_file(target))
    manifest_path(target).write_text(manifest.to_json(), encoding="utf-8")
    return load(target)


def _add_biases_apart(model: Any) -> None:
    """Gives the bias of each flattening FULLY_CONNECTED a step of its own, where tf2onnx 1.17 forgets it."""
    classes, (graph,) = schema(), model.subgraphs
    kinds = classes.BuiltinOperator
    addition = classes.OperatorCodeT()
    addition.builtinCode = addition.deprecatedBuiltinCode = kinds.ADD
    addition.version = 1
    model.operatorCodes.append(addition)
    operators = []
    for node in graph.operators:
        operators.append(node)
        if model.operatorCodes[node.opcodeIndex].builtinCode != kinds.FULLY_CONNECTED:
            continue
        flattens = not node.builtinOptions.keepNumDims and len(graph.tensors[node.inputs[0]].shape) != 2
        if flattens and len(node.inputs) == 3 and node.inputs[2] >= 0:
            operators.append(_bias_apart(graph, node, len(model.operatorCodes) - 1))
    graph.operators = operators


def _bias_apart(graph: Any, node: Any, opcode: int) -> Any:
    """Takes the bias off a FULLY_CONNECTED and returns the ADD that brings it back."""
    classes = schema()
    product = copy.copy(graph.tensors[node.outputs[0]])
    product.name = f"{len(graph.tensors)}"
    graph.tensors.append(product)
    add, options = classes.OperatorT(), classes.AddOptionsT()
    options.fusedActivationFunction = node.builtinOptions.fusedActivationFunction
    node.builtinOptions.fusedActivationFunction = classes.ActivationFunctionType.NONE
    add.opcodeIndex, add.outputs = opcode, node.outputs
    add.builtinOptionsType, add.builtinOptions = classes.BuiltinOptions.AddOptions, options
    node.outputs = np.array([len(graph.tensors) - 1], np.int32)
    add.inputs = np.array([node.outputs[0], node.inputs[2]], np.int32)
    node.inputs = node.inputs[:2]
    return add
