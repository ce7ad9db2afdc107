"""Finds the smallest part of a network that cannot be exported, or whose exported numbers differ.

The network runs once in PyTorch and every part's inputs and outputs are kept. Then parts are exported and
run alone, each on what it was given there: those of the network first, and within one that fails its own
parts, until all parts of what fails do well.
"""

from __future__ import annotations

import copy
import gc
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from antispoof.errors import CheckFailed, UserError, one_line

LONGEST_REASON = 300
# Exports a network, whose inputs are these tensors, and returns what the file makes of them.
Trial = Callable[[nn.Module, tuple[Tensor, ...]], Sequence[np.ndarray]]


class ScoresDiffer(CheckFailed):
    """A file does not score as PyTorch does; ``clip`` is the number of the worst clip."""

    def __init__(self, message: str, clip: int) -> None:
        super().__init__(message)
        self.clip = clip


class NoRule(UserError):
    """A converter does not know an operation of the network."""

    def __init__(self, converter: str, operation: str) -> None:
        super().__init__(f"{converter} has no rule for {operation}")


@dataclass(frozen=True)
class Call:
    """What a part of the network was given, and the tensors that it gave."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: tuple[Tensor, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors among what it was given, which may be parameters."""
        return tuple(x.detach() for x in _tensors((self.arguments, self.keywords)))


@dataclass(frozen=True)
class Culprit:
    """The smallest part that fails.

    Attributes:
        path: Where it is in the network, such as ``encoder.blocks.0.conv1``.
        kind: Its class.
        problem: What happens when it is exported alone.
    """

    path: str
    kind: str
    problem: str

    def __str__(self) -> str:
        return f"the smallest part that fails alone is {self.path} ({self.kind}): {self.problem}"


class Part(nn.Module):
    """A copy of a part, between the tensors that it was given and those that it gave."""

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)
        self.given, self.structure = tree_flatten((call.arguments, call.keywords))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Returns the tensors that the part makes of ``tensors``."""
        waiting = iter(tensors)
        leaves = [next(waiting) if isinstance(leaf, Tensor) else leaf for leaf in self.given]
        arguments, keywords = tree_unflatten(leaves, self.structure)
        return _tensors(self.module(*arguments, **keywords))


@contextmanager
def naming_culprit(
    network: nn.Module, trial: Trial | None, clips: np.ndarray, tolerance: float
) -> Iterator[None]:
    """Says which part of the network is to blame for an export that fails inside the block.

    Args:
        network: What is exported.
        trial: How a part of it is exported and run; None to let failures pass as they are.
        clips: ``(clips, samples)``; the parts run on the one that scores worst, or the first.
        tolerance: How far off a part's outputs may be, relative to the largest where that is above 1.

    Raises:
        CheckFailed: The export failed; names the part and quotes the failure.
        UserError: There is no trial, and the converter does not know an operation.
    """
    try:
        yield
    except Exception as error:
        if trial is None and isinstance(error, NoRule):
            raise UserError(f"{error}; --bisect names the part that has it") from error
        # Without its libraries, nothing can be exported.
        if trial is None or isinstance(error.__cause__, ImportError):
            raise
        worst = error.clip if isinstance(error, ScoresDiffer) else 0
        reason = _quoted(error) if not isinstance(error, CheckFailed | UserError) else str(error)
        culprit = find_culprit(network, trial, torch.from_numpy(clips[worst : worst + 1]), tolerance)
        named = culprit or "no part fails alone: the difference builds up over all, or the score is at fault"
        raise CheckFailed(f"{reason}; {named}") from error


def find_culprit(network: nn.Module, trial: Trial, waveform: Tensor, tolerance: float) -> Culprit | None:
    """Returns the smallest part that fails alone on ``waveform (1, samples)``, or None if all do well."""
    calls = record_calls(network, waveform)
    culprit: Culprit | None = None
    within: tuple[str, nn.Module] | None = ("", network)
    while within is not None:
        candidates, within = _parts(*within, calls), None
        for path, module in candidates:
            problem = _problem(Part(module, calls[path]), calls[path], trial, tolerance)
            print(f"bisect  {path}: {problem or 'as in PyTorch'}", file=sys.stderr, flush=True)
            if problem:
                culprit, within = Culprit(path, type(module).__name__, problem), (path, module)
                break
    return culprit


def record_calls(network: nn.Module, waveform: Tensor) -> dict[str, Call]:
    """Returns the first call of every part that runs, by its path, in the order in which they end."""
    calls: dict[str, Call] = {}

    def remember(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            calls.setdefault(path, Call(arguments, keywords, _tensors(output)))

        return hook

    network.eval()
    hooks = [
        module.register_forward_hook(remember(path), with_kwargs=True)
        for path, module in network.named_modules()
        if path
    ]
    try:
        with torch.no_grad():
            network(waveform)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _parts(path: str, module: nn.Module, calls: dict[str, Call]) -> list[tuple[str, nn.Module]]:
    """Returns the parts right below a module that can be run alone, in the order in which they ran.

    A list of modules, or a module of which other methods than ``forward`` are used, was not called:
    its own parts take its place.
    """
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        below = f"{path}.{name}" if path else name
        runs_alone = below in calls and _can_be_exported(calls[below])
        found += [(below, child)] if runs_alone else _parts(below, child, calls)
    order = {known: index for index, known in enumerate(calls)}
    return sorted(found, key=lambda part: order[part[0]])


def _can_be_exported(call: Call) -> bool:
    tensors = (*call.inputs, *call.outputs)
    passes_on = all(any(out.data_ptr() == x.data_ptr() for x in call.inputs) for out in call.outputs)
    return bool(call.inputs) and not passes_on and all(x.dtype == torch.float32 for x in tensors)


def _problem(part: Part, call: Call, trial: Trial, tolerance: float) -> str:
    """Returns what is wrong with a part's export, or nothing."""
    with warnings.catch_warnings(), torch.no_grad():
        # A conversion that fails leaves temporary folders, of which Python warns when they go.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            outputs = trial(part, call.inputs)
        except Exception as error:
            reason = _quoted(error)
        else:
            return _difference(call.outputs, outputs, tolerance)
        gc.collect()
    return f"cannot be exported: {reason}"


def _difference(expected: Sequence[Tensor], given: Sequence[np.ndarray], tolerance: float) -> str:
    """Returns how outputs differ from what they should be, or nothing if they do not."""
    if len(given) != len(expected):
        return f"gives {len(given)} tensors instead of {len(expected)}"
    for right, actual in zip((x.numpy() for x in expected), given, strict=True):
        if actual.shape != right.shape:
            return f"gives the shape {actual.shape} instead of {right.shape}"
        allowed = tolerance * max(1.0, float(np.abs(right).max(initial=0)))
        difference = float(np.abs(actual - right).max(initial=0))
        if not difference <= allowed:
            return f"differs by {difference:.2g} at most, allowed are {allowed:.2g}"
    return ""


def _tensors(output: Any) -> tuple[Tensor, ...]:
    return tuple(x for x in tree_leaves(output) if isinstance(x, Tensor))


def _quoted(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)[:LONGEST_REASON]}"
