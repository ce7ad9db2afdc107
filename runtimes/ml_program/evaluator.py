"""Runs an ML Program on PyTorch's CPU kernels, operation by operation, in float32 or as in half precision.

Values are kept as float32. What the program declares as float16 is rounded to it after every operation,
and beyond 65504 becomes infinite, as half precision does. Inside one operation sums are float32: Apple
does not publish how its processors add up, and some add in half precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from antispoof.errors import UserError, one_line
from runtimes.ml_program import compression, elementwise, layers, shaping  # noqa: F401 - fill KINDS
from runtimes.ml_program.kinds import KINDS, TENSOR_ANNOTATIONS, Function, Tensor, constant, tensor
from runtimes.ml_program.program import Argument, Operation, Program, Reference, Type

Precision = Literal["stored", "float16"]
FLOATS = ("float16", "float32")


@dataclass(frozen=True)
class Step:
    """An operation ready to run.

    Attributes:
        operation: What it is in the program.
        call: The function with its constants bound.
        takes: Parameter and the number of its value, or the numbers of several.
        gives: Number, type and whether to round to float16, of each output.
        frees: Numbers of the values that nothing needs afterwards.
    """

    operation: Operation
    call: Function
    takes: tuple[tuple[str, int | tuple[int, ...]], ...]
    gives: tuple[tuple[int, Type, bool], ...]
    frees: tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """What an operation gave.

    Attributes:
        operation: The operation.
        values: Its outputs, in the order that the operation names them.
    """

    operation: Operation
    values: tuple[Tensor, ...]


class Evaluator:
    """A program made ready to run any number of times."""

    def __init__(self, program: Program, precision: Precision = "stored") -> None:
        """Binds all constants.

        Args:
            program: The program.
            precision: ``stored`` as the program says; ``float16`` as if all of it were in half precision.

        Raises:
            UserError: An operation is unknown, or its arguments are not what its definition says.
        """
        self.program = program
        self.round_all = precision == "float16"
        self._numbers: dict[str, int] = {}
        self._constants: dict[str, Any] = {}
        self._presets: dict[int, Tensor] = {}
        self._inputs = [(name, self._number(name), kind) for name, kind in program.inputs]
        steps = [step for op in program.operations if (step := self._compile(op)) is not None]
        self._outputs = []
        for name in program.outputs:
            if name not in self._numbers:
                raise UserError(f"the output {name!r} is computed by no operation")
            self._outputs.append((name, self._numbers[name]))
        self.steps = _with_lifetimes(steps, {number for _, number in self._outputs})

    def output_types(self) -> dict[str, Type]:
        """Returns the declared type of each output."""
        declared = {name: kind for op in self.program.operations for name, kind in op.outputs}
        return {name: declared[name] for name in self.program.outputs}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the program's outputs by name.

        Raises:
            UserError: An input is missing or of another shape, or an operation cannot be computed.
        """
        values = self._start(inputs)
        for _ in self._steps(values):
            pass
        return {name: values[number].numpy() for name, number in self._outputs}

    def trace(self, inputs: Mapping[str, np.ndarray]) -> Iterator[Result]:
        """Yields what each operation gives, one after the other, the inputs' own roundings included.

        Raises:
            UserError: As `run`.
        """
        return self._steps(self._start(inputs))

    def _start(self, inputs: Mapping[str, np.ndarray]) -> list[Any]:
        values: list[Any] = [self._presets.get(number) for number in range(len(self._numbers))]
        for name, number, kind in self._inputs:
            if name not in inputs or inputs[name].shape != kind.shape:
                found = inputs[name].shape if name in inputs else "nothing"
                raise UserError(f"the input {name!r} takes {kind}, got {found}")
            values[number] = self._rounded(tensor(inputs[name]), kind)
        return values

    def _steps(self, values: list[Any]) -> Iterator[Result]:
        """Fills in ``values`` and empties them again as soon as nothing needs them."""
        for step in self.steps:
            arguments = {
                name: values[taken] if isinstance(taken, int) else [values[one] for one in taken]
                for name, taken in step.takes
            }
            with torch.inference_mode():
                given = _computed(step, arguments)
            del arguments
            for (number, _, _), value in zip(step.gives, given, strict=True):
                values[number] = value
            yield Result(step.operation, given)
            del given
            for number in step.frees:
                values[number] = None

    def _compile(self, operation: Operation) -> Step | None:
        """Returns the step of an operation, or computes it now if it takes constants alone."""
        if operation.kind == "const":
            (name, declared), *_ = operation.outputs
            self._constants[name] = self._constant(operation.arguments.get("val"), declared)
            return None
        if operation.kind not in KINDS:
            raise UserError(
                f"the operation {operation.kind!r} ({operation.name}) is not supported by the evaluator, "
                "which runs packages where Core ML is not (runtimes/ml_program)"
            )
        bound, taken = self._arguments(operation)
        kind = KINDS[operation.kind]
        gives = tuple(
            (
                0 if not taken else self._number(name),
                output,
                self._rounds(output) and not kind.exact,
            )
            for name, output in operation.outputs
        )
        step = Step(operation, partial(kind.function, **bound), tuple(taken.items()), gives, ())
        if taken:
            return step
        with torch.inference_mode():
            for (name, _), value in zip(operation.outputs, _computed(step, {}), strict=True):
                self._constants[name] = value
        return None

    def _arguments(self, operation: Operation) -> tuple[dict[str, Any], dict[str, int | tuple[int, ...]]]:
        """Splits an operation's arguments into constants and numbers of values."""
        where = f"{operation.kind} {operation.name!r}"
        parameters = KINDS[operation.kind].parameters
        bound: dict[str, Any] = {}
        taken: dict[str, int | tuple[int, ...]] = {}
        for name, argument in operation.arguments.items():
            if name not in parameters:
                raise UserError(f"{where}: the argument {name!r} is not supported")
            annotation = str(parameters[name].annotation)
            computed = annotation.removesuffix(" | None") in TENSOR_ANNOTATIONS
            known = self._resolved(argument, where)
            several = isinstance(known, list) and any(isinstance(one, Reference) for one in known)
            try:
                if computed and isinstance(known, Reference):
                    one = self._numbers[known.name]
                    taken[name] = (one,) if annotation == "Tensors" else one
                elif computed and several:
                    taken[name] = tuple(self._value(one) for one in known)
                else:
                    bound[name] = constant(known, annotation)
            except UserError as error:
                raise UserError(f"{where}: {name}: {error}") from None
        missing = [
            name
            for name, row in parameters.items()
            if row.default is row.empty and name not in {**bound, **taken}
        ]
        if missing:
            raise UserError(f"{where}: the argument {missing[0]!r} is missing")
        return bound, taken

    def _resolved(self, argument: Argument, where: str) -> Argument:
        """Returns an argument with the constants it refers to in place of their names."""
        if isinstance(argument, list):
            return [self._resolved(one, where) for one in argument]
        if not isinstance(argument, Reference):
            return argument
        if argument.name in self._constants:
            return self._constants[argument.name]
        if argument.name not in self._numbers:
            raise UserError(f"{where}: nothing before it computes {argument.name!r}")
        return argument

    def _constant(self, value: Argument, kind: Type) -> Any:
        if isinstance(value, np.ndarray) and self.round_all and self._rounds(kind):
            with np.errstate(over="ignore"):
                return value.astype(np.float16)
        return value

    def _value(self, one: Any) -> int:
        """Returns the number of one of several values; a constant among them gets a number of its own."""
        if isinstance(one, Reference):
            return self._numbers[one.name]
        number = self._number(f"constant beside values, {len(self._presets)}")
        self._presets[number] = tensor(one)
        return number

    def _number(self, name: str) -> int:
        if name in self._numbers or name in self._constants:
            raise UserError(f"{name!r} is computed twice")
        self._numbers[name] = len(self._numbers)
        return self._numbers[name]

    def _rounds(self, kind: Type) -> bool:
        return kind.dtype == "float16" or (self.round_all and kind.dtype == "float32")

    def _rounded(self, value: Tensor, kind: Type) -> Tensor:
        return value.half().float() if self._rounds(kind) else value


def _computed(step: Step, arguments: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Runs a step and holds what it gives against what the program declares."""
    operation = step.operation
    try:
        result = step.call(**arguments)
    except (RuntimeError, IndexError, ValueError, TypeError, KeyError, UserError) as error:
        problem = one_line(error).partition(" Exception raised from ")[0]
        raise UserError(f"{operation.kind} {operation.name!r} cannot be computed: {problem:.200}") from error
    results = result if isinstance(result, tuple) else (result,)
    if len(results) != len(step.gives):
        raise UserError(
            f"{operation.kind} {operation.name!r} gives {len(results)} values, "
            f"where the program declares {len(step.gives)}"
        )
    rounded = []
    for value, (_, declared, rounds) in zip(results, step.gives, strict=True):
        if tuple(value.shape) != declared.shape:
            raise UserError(
                f"{operation.kind} {operation.name!r} gives the shape {tuple(value.shape)}, "
                f"where the program declares {declared}"
            )
        rounded.append(value.half().float() if rounds else value)
    return tuple(rounded)


def _with_lifetimes(steps: list[Step], kept: set[int]) -> tuple[Step, ...]:
    """Returns the steps with what each of them may free: values that no later one takes."""
    needed, finished = set(kept), []
    for step in reversed(steps):
        used = {
            number for _, taken in step.takes for number in ([taken] if isinstance(taken, int) else taken)
        }
        touched = used | {number for number, _, _ in step.gives}
        frees = tuple(sorted(touched - needed))
        needed |= used
        finished.append(Step(step.operation, step.call, step.takes, step.gives, frees))
    return tuple(reversed(finished))
