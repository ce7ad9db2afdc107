"""An ML Program as plain data: operations in order, their arguments, the types of what they give.

Core ML calls the language MIL. A function is one list of operations; every value has a name, is given
by one operation, and is of a declared type.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from antispoof.errors import UserError
from runtimes.ml_program.blobs import Blobs, elements
from runtimes.ml_program.schema import DATA_TYPES
from runtimes.ml_program.wire import Message

MAIN = "main"
MAX_ELEMENTS = 1 << 31  # of one tensor; a damaged shape must not ask for more


@dataclass(frozen=True)
class Type:
    """Type and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class Reference:
    """An argument that is the value of this name."""

    name: str


Argument = Any  # a Reference, an array, a text, or a list of those


@dataclass(frozen=True)
class Operation:
    """One step of a program.

    Attributes:
        kind: What is done, such as ``conv``.
        name: What the converter called it.
        arguments: By the names of MIL's definition of this kind.
        outputs: Name and type of each value that it gives.
    """

    kind: str
    name: str
    arguments: dict[str, Argument]
    outputs: tuple[tuple[str, Type], ...]

    def describe(self) -> str:
        """Returns kind, name and what it gives, for messages."""
        return f"{self.kind} {self.name!r}, {', '.join(str(kind) for _, kind in self.outputs)}"


@dataclass(frozen=True)
class Program:
    """The main function of an ML Program, and what its file says of itself."""

    specification: int
    opset: str
    inputs: tuple[tuple[str, Type], ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    metadata: dict[str, str]


def read_program(model: Message, blobs: Blobs) -> Program:
    """Returns the program of a decoded model.

    Raises:
        UserError: The model is no ML Program, or uses what is not read here.
    """
    functions = model.get("mlProgram", {}).get("functions", {})
    if MAIN not in functions:
        raise UserError("not an ML Program; older Core ML models are not evaluated here")
    function = functions[MAIN]
    opset = function.get("opset", "")
    block = function.get("block_specializations", {}).get(opset)
    if block is None:
        raise UserError(f"its program has no instructions for {opset or 'any version'}")
    return Program(
        model.get("specificationVersion", 0),
        opset,
        tuple(_named_type(row) for row in function["inputs"]),
        tuple(block["outputs"]),
        tuple(_operation(message, blobs) for message in block["operations"]),
        model.get("description", {}).get("metadata", {}).get("userDefined", {}),
    )


def _operation(message: Message, blobs: Blobs) -> Operation:
    kind = message.get("type", "")
    attributes = {key: _value(value, blobs) for key, value in message["attributes"].items()}
    name = attributes.pop("name", "")
    if message["blocks"]:
        raise UserError(f"operation {kind!r} ({name}) holds operations of its own, which is not supported")
    outputs = tuple(_named_type(row) for row in message["outputs"])
    if not outputs:
        raise UserError(f"operation {kind!r} ({name}) gives nothing")
    arguments = {
        key: _bindings(argument.get("arguments", []), blobs) for key, argument in message["inputs"].items()
    }
    return Operation(kind, str(name) or outputs[0][0], {**attributes, **arguments}, outputs)


def _bindings(bindings: list[Message], blobs: Blobs) -> Argument:
    """Returns one argument, or the list of them where an operation takes several under one name."""
    read = [
        Reference(binding["name"]) if "name" in binding else _value(binding.get("value", {}), blobs)
        for binding in bindings
    ]
    return read[0] if len(read) == 1 else read


def _named_type(message: Message) -> tuple[str, Type]:
    name = message.get("name", "")
    return name, _tensor_type(message.get("type", {}), name)


def _tensor_type(message: Message, where: str) -> Type:
    tensor = message.get("tensorType")
    if tensor is None and "listType" in message:
        return _tensor_type(message["listType"].get("type", {}), where)
    if tensor is None or tensor.get("dataType") not in DATA_TYPES:
        raise UserError(f"{where!r} is of a type that is not supported")
    shape = tuple(row.get("constant", {}).get("size", -1) for row in tensor["dimensions"])
    if any(size < 0 for size in shape):
        raise UserError(f"{where!r} has no fixed shape")
    if math.prod(shape) > MAX_ELEMENTS:
        raise UserError(f"{where!r} has the shape {shape}")
    return Type(DATA_TYPES[tensor["dataType"]][0], shape)


def _value(message: Message, blobs: Blobs) -> Argument:
    """Returns a constant: an array, a text, or a list of them."""
    immediate = message.get("immediateValue", {})
    for several in ("list", "tuple"):
        if several in immediate:
            return [_value(entry, blobs) for entry in immediate[several]["values"]]
    kind = _tensor_type(message.get("type", {}), "a constant")
    if blob := message.get("blobFileValue"):
        return blobs.read(blob.get("fileName", ""), blob.get("offset", 0), kind.dtype, kind.shape)
    return _immediate(immediate.get("tensor", {}), kind)


def _immediate(tensor: Message, kind: Type) -> Argument:
    if kind.dtype == "string":
        texts = tensor.get("strings", {}).get("values", [])
        _check_count(texts, kind)
        return texts[0] if len(texts) == 1 and not kind.shape else texts
    if "bytes" in tensor:
        content = np.frombuffer(tensor["bytes"].get("values", b""), np.uint8)
        return elements(content, kind.dtype, kind.shape)
    if "strings" in tensor:
        raise UserError(f"a constant of {kind.dtype} has text instead of numbers")
    # The field is the writer's choice by type, and a tensor without elements has none.
    stored: list[Any] = next((tensor[key]["values"] for key in tensor), [])
    _check_count(stored, kind)
    narrow = np.int8 if kind.dtype == "int4" else np.uint8
    dtype = np.dtype(kind.dtype) if kind.dtype in np.sctypeDict else np.dtype(narrow)
    try:
        return np.array(stored, dtype).reshape(kind.shape)
    except (OverflowError, ValueError):  # too large, or not a number
        raise UserError(f"a constant has numbers that are not of {kind.dtype}") from None


def _check_count(stored: list[Any], kind: Type) -> None:
    if len(stored) != math.prod(kind.shape):
        raise UserError(f"a constant has {len(stored)} elements for the shape {kind.shape}")
