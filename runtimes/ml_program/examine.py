"""Looks inside a program while it runs: how large its values grow, and where two programs part.

Half precision ends at 65504, keeps all its digits down to 6.1e-5 and nothing below 6e-8. A model that
is right in float32 and wrong on a phone mostly meets one of the three somewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.kinds import Tensor
from runtimes.ml_program.program import Operation, Program, Reference

LARGEST_HALF = 65504.0
SMALLEST_NORMAL_HALF = 2.0**-14  # 6.1e-5; below it digits are lost
PRECISION_SUFFIX = re.compile(r"(_cast|_to)_fp(16|32)(_\d+)?$")  # what the converter adds to names


@dataclass(frozen=True)
class Range:
    """What values a tensor took over all clips.

    Attributes:
        operation: What gives it.
        low: Its smallest value.
        high: Its largest.
        tiny: Share of its values that are not 0 and below what half precision keeps all digits of.
    """

    operation: Operation
    low: float
    high: float
    tiny: float

    @property
    def overflows(self) -> bool:
        """Whether half precision cannot hold it (a NaN counts)."""
        return not max(-self.low, self.high) <= LARGEST_HALF


@dataclass(frozen=True)
class Departure:
    """Where two programs part.

    Attributes:
        operation: The first operation of the candidate that gives something else.
        clip: On which clip.
        difference: The largest difference, as a share of the largest value there; infinite where the
            candidate gives infinite values or NaN that the reference does not, or another shape.
        constants: The operation's constants that differ, each with its largest difference.
    """

    operation: Operation
    clip: int
    difference: float
    constants: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        what = (
            f"by {self.difference:.2g} of its largest value"
            if np.isfinite(self.difference)
            else "beyond measure"
        )
        changed = "".join(f"; its constant {name!r} differs by {by:.2g}" for name, by in self.constants)
        return f"{self.operation.describe()} differs {what} on clip {self.clip}{changed}"


def ranges(evaluator: Evaluator, clips: np.ndarray) -> list[Range]:
    """Returns the range of every floating-point tensor over ``clips (clips, samples)``, in order."""
    found: dict[str, list[tuple[Operation, float, float, float]]] = {}
    for inputs in _one_by_one(evaluator, clips):
        for result in evaluator.trace(inputs):
            for (name, _), value in zip(result.operation.outputs, result.values, strict=True):
                if value.is_floating_point() and value.numel():
                    found.setdefault(name, []).append((result.operation, *_range(value)))
    return [
        Range(
            rows[0][0], min(row[1] for row in rows), max(row[2] for row in rows), max(row[3] for row in rows)
        )
        for rows in found.values()
    ]


def _range(value: Tensor) -> tuple[float, float, float]:
    low, high = torch.aminmax(value)
    tiny = ((value != 0) & (value.abs() < SMALLEST_NORMAL_HALF)).float().mean()
    return float(low), float(high), float(tiny)


def first_departure(
    reference: Evaluator, candidate: Evaluator, clips: np.ndarray, tolerance: float
) -> Departure | None:
    """Runs two programs side by side and returns where the candidate first leaves the reference.

    Operations are matched by name; those that only one of them has are passed over.

    Args:
        reference: What is taken for right.
        candidate: What is examined.
        clips: ``(clips, samples)``.
        tolerance: How far values may be apart, as a share of the largest of an operation's values.
    """
    for index, inputs in enumerate(_one_by_one(reference, clips)):
        waiting: dict[str, tuple[Tensor, ...]] = {}
        others = reference.trace(inputs)
        names = {_plain(step.operation.name) for step in reference.steps}
        for result in candidate.trace(inputs):
            name = _plain(result.operation.name)
            if name not in names:
                continue
            while name not in waiting:
                other = next(others, None)
                if other is None:
                    break
                waiting[_plain(other.operation.name)] = other.values
            expected = waiting.pop(name, ())
            difference = max(map(_difference, expected, result.values), default=0.0)
            if not difference <= tolerance:
                constants = _changed(reference.program, candidate.program, result.operation)
                return Departure(result.operation, index, difference, constants)
    return None


def _difference(expected: Tensor, actual: Tensor) -> float:
    if expected.shape != actual.shape:
        return float("inf")
    if not actual.is_floating_point():
        return 0.0  # masks and ranks: what follows from them is compared
    if not torch.isfinite(actual).all():
        return float("inf") if torch.isfinite(expected).all() else 0.0
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    apart = float((expected - actual).abs().max()) if expected.numel() else 0.0
    return apart / scale if scale else float(apart > 0)


def _changed(reference: Program, candidate: Program, operation: Operation) -> tuple[tuple[str, float], ...]:
    """Returns the constants of an operation that differ by more than half precision rounds."""
    before, after = _constants(reference), _constants(candidate)
    changed = []
    for argument in operation.arguments.values():
        name = argument.name if isinstance(argument, Reference) else ""
        old, new = before.get(_plain(name)), after.get(_plain(name))
        if old is None or new is None or old.shape != new.shape or not old.size:
            continue
        by = float(np.abs(old.astype(np.float64) - new).max())
        if by > 1e-3 * float(np.abs(old).max()):
            changed.append((_plain(name), by))
    return tuple(changed)


def _constants(program: Program) -> dict[str, np.ndarray]:
    return {
        _plain(op.outputs[0][0]): value
        for op in program.operations
        if op.kind == "const" and isinstance(value := op.arguments.get("val"), np.ndarray)
    }


def _plain(name: str) -> str:
    """Returns a name as the converter gives it without regard to precision."""
    return PRECISION_SUFFIX.sub("", name)


def _one_by_one(evaluator: Evaluator, clips: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    (name, kind), *_ = evaluator.program.inputs
    for clip in clips:
        yield {name: np.broadcast_to(clip, kind.shape)}
