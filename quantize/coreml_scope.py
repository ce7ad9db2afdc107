"""Which layers of an ML Program hear the waveform, and which ones read integers."""

from __future__ import annotations

import numpy as np

from quantize.scope import LINEAR_WEIGHTS, Step, hearing
from runtimes.ml_program.program import Operation, Program, Reference

WEIGHTED = ("conv", "conv_transpose", "linear")
REARRANGING = (
    *("reshape", "transpose", "expand_dims", "squeeze", "slice_by_index", "slice_by_size", "split", "pad"),
    "identity",
)


def front_end(program: Program) -> list[str]:
    """Returns the names of the layers that hear the waveform."""
    constants = _constants(program)
    steps = [
        Step(_reads(op), [name for name, _ in op.outputs], _is_layer(op, constants), op.kind in REARRANGING)
        for op in program.operations
    ]
    (waveform, _), *_ = program.inputs
    return [program.operations[index].name for index in sorted(hearing(steps, waveform))]


def activations_in_scope(program: Program) -> dict[str, str]:
    """Returns the name of each layer that reads integers, and that of the tensor it reads.

    Not the layers that hear the waveform, nor small projections, nor what reads a map of one channel: that
    has the waveform's range from loud to quiet, and its convolution is next to no work.
    """
    constants, heard = _constants(program), set(front_end(program))
    return {
        op.name: op.arguments["x"].name
        for op in program.operations
        if op.name not in heard and _is_layer(op, constants) and _is_worth_it(op, constants)
    }


def _constants(program: Program) -> dict[str, Operation]:
    return {name: op for op in program.operations if op.kind == "const" for name, _ in op.outputs}


def _reads(op: Operation) -> list[str]:
    """Returns the names of the values that an operation reads."""
    listed = [one for row in op.arguments.values() for one in (row if isinstance(row, list) else [row])]
    return [one.name for one in listed if isinstance(one, Reference)]


def _is_layer(op: Operation, constants: dict[str, Operation]) -> bool:
    return op.kind in WEIGHTED and getattr(op.arguments.get("weight"), "name", None) in constants


def _is_worth_it(op: Operation, constants: dict[str, Operation]) -> bool:
    weight = constants[op.arguments["weight"].name].arguments["val"]
    channels = np.shape(weight)[1]
    return (op.kind == "conv" and channels > 1) or (op.kind == "linear" and np.size(weight) >= LINEAR_WEIGHTS)
