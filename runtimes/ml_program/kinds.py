"""The table of operations: a function of PyTorch tensors for each kind that MIL defines.

A function's parameters have MIL's names, and their annotations say how an argument is handed over:
``Tensor`` and ``Tensors`` as tensors, which may be computed while the program runs; ``Ints``, ``int``,
``float``, ``bool`` and ``str`` as Python values, which must be constants. Parameters with a default
are optional in MIL, with MIL's default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from antispoof.errors import UserError

Tensor = torch.Tensor
Tensors = list[torch.Tensor]
Ints = tuple[int, ...]
Function = Callable[..., Any]
TENSOR_ANNOTATIONS = ("Tensor", "Tensors")


@dataclass(frozen=True)
class Kind:
    """How one kind of operation is computed.

    Attributes:
        function: Takes MIL's parameters by name and returns a tensor, or a tuple of them.
        exact: Whether it only moves, selects or compares values, so that half precision adds no rounding.
    """

    function: Function
    exact: bool

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The function's parameters by name."""
        return inspect.signature(self.function).parameters


KINDS: dict[str, Kind] = {}


def operation(*names: str, exact: bool = False) -> Callable[[Function], Function]:
    """Registers a function as what computes the kinds of these names."""

    def register(function: Function) -> Function:
        for name in names:
            if name in KINDS:
                raise ValueError(f"two functions compute {name!r}")
            KINDS[name] = Kind(function, exact)
        return function

    return register


def constant(value: Any, annotation: str) -> Any:
    """Returns a constant as a parameter of this annotation takes it.

    Raises:
        UserError: It is of another sort.
    """
    try:
        return _CONVERTERS[annotation](value)
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{value!r:.60} is no {annotation}") from None


def tensor(value: Any) -> Tensor:
    """Returns an array as a tensor: floats as float32 (their rounding kept), narrow integers as they are."""
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    elif array.dtype.kind not in "iub":
        raise TypeError(f"{array.dtype} is no tensor")
    # A copy: weights are mapped from their file, which nothing may write to.
    return torch.from_numpy(np.array(array, order="C"))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "Tensor": tensor,
    "Tensor | None": tensor,
    "Tensors": lambda value: [tensor(one) for one in _listed(value)],
    "Ints": lambda value: tuple(int(one) for one in np.asarray(value).reshape(-1)),
    "Ints | None": lambda value: tuple(int(one) for one in np.asarray(value).reshape(-1)),
    "Bools": lambda value: tuple(bool(one) for one in np.asarray(value).reshape(-1)),
    "int": lambda value: int(np.asarray(value).item()),
    "int | None": lambda value: int(np.asarray(value).item()),
    "float": lambda value: float(np.asarray(value).item()),
    "bool": lambda value: bool(np.asarray(value).item()),
    "str": _text,
}
Bools = tuple[bool, ...]
