"""Reads protocol-buffer messages by a table of their fields, without generated classes.

Core ML's classes come with coremltools, whose import takes seconds and pulls in the converters. Reading
takes a page of code, and what is read here was understood without the library that wrote it.
Encoding: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_DEPTH = 100  # of messages in messages, protobuf's own limit
MAX_VARINT_BYTES = 10
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
Message = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes:
        name: What the decoded message calls it.
        kind: ``int``, ``bool``, ``float``, ``double``, ``string``, ``bytes``, or the fields of a message.
        many: Whether it may occur any number of times and is decoded to a list.
        keyed: Whether it is a map, decoded to a dictionary; ``kind`` is that of the values.
    """

    name: str
    kind: str | dict[int, Field]
    many: bool = False
    keyed: bool = False


Fields = dict[int, Field]


class WireError(ValueError):
    """The bytes are no message of that type."""


def decode(data: memoryview, fields: Fields, depth: int = 0) -> Message:
    """Returns the message in ``data`` as a dictionary; fields that are absent, or unknown, are left out.

    Lists and maps are there even when they are empty.

    Raises:
        WireError: The bytes are truncated or of another type.
    """
    if depth > MAX_DEPTH:
        raise WireError(f"messages nested more than {MAX_DEPTH} deep")
    message: Message = {field.name: [] for field in fields.values() if field.many}
    message |= {field.name: {} for field in fields.values() if field.keyed}
    for number, wire_type, raw in _entries(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.keyed:
            pair = {1: Field("key", "string"), 2: Field("value", field.kind)}
            entry = decode(_nested(raw, field), pair, depth + 1)
            empty = decode(raw[:0], field.kind) if isinstance(field.kind, dict) else ""
            message[field.name][entry.get("key", "")] = entry.get("value", empty)
        elif field.many and isinstance(field.kind, str) and wire_type == LENGTH:
            message[field.name].extend(_packed(raw, field))
        elif field.many:
            message[field.name].append(_single(raw, wire_type, field, depth))
        else:
            message[field.name] = _single(raw, wire_type, field, depth)
    return message


def _entries(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yields number, wire type and raw value (an integer or bytes) of each field in order."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            raw, position = _varint(data, position)
            yield number, wire_type, raw
            continue
        if wire_type == LENGTH:
            size, position = _varint(data, position)
        elif wire_type in (FIXED32, FIXED64):
            size = 4 if wire_type == FIXED32 else 8
        else:
            raise WireError(f"wire type {wire_type}")
        if size > end - position:
            raise WireError(f"field {number} is cut off")
        yield number, wire_type, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[position : position + MAX_VARINT_BYTES]):
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, position + index + 1
    raise WireError("a number is cut off")


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _nested(raw: Any, field: Field) -> memoryview:
    if not isinstance(raw, memoryview):
        raise WireError(f"{field.name} is a number")
    return raw


def _single(raw: Any, wire_type: int, field: Field, depth: int) -> Any:
    if isinstance(field.kind, dict):
        return decode(_nested(raw, field), field.kind, depth + 1)
    wanted = {"float": FIXED32, "double": FIXED64, "string": LENGTH, "bytes": LENGTH}.get(field.kind, VARINT)
    if wire_type != wanted:
        raise WireError(f"{field.name} has wire type {wire_type}, not {wanted}")
    if field.kind in ("int", "bool"):
        return bool(raw) if field.kind == "bool" else _signed(raw)
    if field.kind in ("float", "double"):
        return float(np.frombuffer(raw, _dtype(field))[0])
    return _text(raw, field) if field.kind == "string" else bytes(raw)


def _packed(raw: memoryview, field: Field) -> list[Any]:
    """Returns the elements of a repeated field: numbers lie one behind the other, texts alone."""
    if field.kind in ("string", "bytes"):
        return [_text(raw, field) if field.kind == "string" else bytes(raw)]
    if field.kind in ("float", "double"):
        if len(raw) % _dtype(field).itemsize:
            raise WireError(f"{field.name} is cut off")
        return np.frombuffer(raw, _dtype(field)).tolist()
    values, position = [], 0
    while position < len(raw):
        value, position = _varint(raw, position)
        values.append(bool(value) if field.kind == "bool" else _signed(value))
    return values


def _dtype(field: Field) -> np.dtype[Any]:
    return np.dtype("<f4" if field.kind == "float" else "<f8")


def _text(raw: memoryview, field: Field) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise WireError(f"{field.name} is not UTF-8") from None
