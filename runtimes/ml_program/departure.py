"""Finds where two programs part: the first operation of one that gives something else than the other's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.kinds import Tensor
from runtimes.ml_program.program import Operation, Program, Reference

PRECISION_SUFFIX = re.compile(r"(_cast|_to)_fp(16|32)(_\d+)?$")  # what the converter adds to names


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
