"""Turns nested mappings, as a YAML file holds them, into frozen dataclasses; each mistake names its key."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import field
from typing import Any

INFINITE = float("inf")


def within(low: float, high: float = INFINITE, *, rising: bool = False, **default: Any) -> Any:
    """Declares a number, or several, that must lie in ``low..high``; a ``rising`` pair must not fall."""
    return field(metadata={"range": (low, high), "rising": rising}, **default)


def one_of(*choices: str, **default: Any) -> Any:
    """Declares a word out of a list."""
    return field(metadata={"choices": choices}, **default)


def build(kind: type, content: Any, where: str = "") -> Any:
    """Returns a dataclass made of a mapping.

    Args:
        kind: The dataclass; its fields hold numbers, words, tuples and dictionaries of them, or dataclasses.
        content: What the file says.
        where: The dotted path to it, ending in a dot, for the messages.

    Raises:
        ValueError: The mapping does not fit, in words that name the key.
    """
    if not isinstance(content, dict):
        raise ValueError(
            f"{where.rstrip('.') or 'the file'} must be a mapping of keys, not {_describe(content)}"
        )
    hints = typing.get_type_hints(kind)
    unknown = [str(key) for key in content if key not in hints]
    if unknown:
        raise ValueError(f"unknown key {where}{unknown[0]}; there are {', '.join(hints)}")
    values = {}
    for declared in dataclasses.fields(kind):
        if declared.name in content:
            key = where + declared.name
            values[declared.name] = _value(hints[declared.name], content[declared.name], key)
            _check_allowed(declared.metadata, values[declared.name], key)
        elif declared.default is declared.default_factory is dataclasses.MISSING:
            raise ValueError(f"the key {where}{declared.name} is missing")
    return kind(**values)


def _value(hint: Any, value: Any, key: str) -> Any:
    """Returns ``value`` as the type ``hint`` wants it."""
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, key + ".")
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:  # the only one in use is "or None"
        return None if value is None else _value(inner[0], value, key)
    if origin is tuple:
        return _items(inner, value, key)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{key} must be a mapping of keys, not {_describe(value)}")
        return {str(name): _value(inner[1], item, f"{key}.{name}") for name, item in value.items()}
    if hint is Any:
        return tuple(value) if isinstance(value, list) else value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{key} must be {_NAMES[hint]}, not {_describe(value)}")
    return value


def _items(inner: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
    """Returns a list of the file as a tuple of the wanted length and types."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key} must be a list, not {_describe(value)}")
    if inner[-1] is Ellipsis:
        return tuple(_value(inner[0], item, key) for item in value)
    if len(value) != len(inner):
        raise ValueError(f"{key} must be a list of {len(inner)}, not of {len(value)}")
    return tuple(_value(hint, item, key) for hint, item in zip(inner, value, strict=True))


def _check_allowed(metadata: Any, value: Any, key: str) -> None:
    """Raises ``ValueError`` where a value, or one of several, is outside of what its field declares."""
    several = value.values() if isinstance(value, dict) else value
    single = list(several) if isinstance(value, dict | tuple) else [value]
    if "range" in metadata:
        low, high = metadata["range"]
        outside = [item for item in single if not low <= item <= high]
        if outside:
            span = f"at least {low}" if high == INFINITE else f"in {low} to {high}"
            raise ValueError(f"{key} must be {span}, not {outside[0]}")
    if "choices" in metadata and value not in metadata["choices"]:
        raise ValueError(f"{key} must be one of {', '.join(metadata['choices'])}, not {value!r}")
    if metadata.get("rising") and value[0] > value[1]:
        raise ValueError(f"{key} must run from low to high, not from {value[0]:g} to {value[1]:g}")


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _describe(value: Any) -> str:
    if isinstance(value, str):
        hint = (
            " (YAML reads 1e-3 as text: write 0.001 or 1.0e-3)"
            if value[:1].isdigit() and "e" in value
            else ""
        )
        return f"the text {value!r}{hint}"
    return "nothing" if value is None else f"{value!r}"
