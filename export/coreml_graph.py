"""A traced network in the operations that Core ML's converter takes, everything constant computed ahead.

What the converter has no rule for, such as a recurrent layer, is taken apart as PyTorch does it. It also
stumbles over some shorthand (a pool without a stride, ``&`` of two masks, a product with a vector), pads
around no circle, and mistypes arithmetic on constants, so neither is left for it to meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx.node import map_arg

from antispoof.formats import format_named
from antispoof.lowering import NEURAL_ENGINE, Lowering, lowering
from export import neural_engine
from export.bisection import NoRule

aten = torch.ops.aten


def core_ml_program(
    network: nn.Module, example: tuple[Tensor, ...], *, for_neural_engine: bool = False
) -> ExportedProgram:
    """Returns a network for inputs of these shapes, traced, folded and in operations of the converter.

    Raises:
        NoRule: It has an operation that the converter does not know.
    """
    with lowering(lowering_for(for_neural_engine)), torch.no_grad():
        traced = torch.export.export(network, example, strict=False)
    module = traced.module(check_guards=False)
    fold_constants(module)
    table = {**_taken_apart(), **_TABLE, **(neural_engine.TABLE if for_neural_engine else {})}
    with torch.no_grad():
        program = torch.export.export(module, example, strict=False).run_decompositions(table)
    _refuse_unknown(program)
    return program


def _taken_apart() -> dict[Any, Callable[..., Any]]:
    """Returns PyTorch's own decompositions of what the converter has no rule for, or a broken one."""
    broken = (aten.rms_norm.default,)
    known = decomposition_table | torch.export.default_decompositions()
    return {op: rule for op, rule in known.items() if op in broken or not _has_rule(op)}


def _has_rule(target: Any) -> bool:
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

    kind = target.name() if isinstance(target, OpOverload) else target.__name__
    return sanitize_op_kind(kind) in _TORCH_OPS_REGISTRY


def _refuse_unknown(program: ExportedProgram) -> None:
    for node in program.graph.nodes:
        if node.op == "call_function" and not _has_rule(node.target):
            raise NoRule("Core ML's converter", str(node.target))


def lowering_for(neural_engine: bool) -> Lowering:
    """Returns how a network is put for Core ML."""
    return NEURAL_ENGINE if neural_engine else format_named("coreml").lowering


def fold_constants(module: fx.GraphModule) -> None:
    """Replaces, in place, whatever does not depend on the input by its value."""
    values = _constant_values(module)
    for index, (node, value) in enumerate(values.items()):
        live = [user for user in node.users if user not in values]
        if node.op == "get_attr" or not live or not isinstance(value, Tensor):
            continue
        name = f"constant_{index}"
        module.register_buffer(name, value.clone().contiguous())
        with module.graph.inserting_before(node):
            folded = module.graph.get_attr(name)
        for user in live:
            user.replace_input_with(node, folded)
    module.graph.eliminate_dead_code()
    module.recompile()


def _constant_values(module: fx.GraphModule) -> dict[fx.Node, Any]:
    """Returns what each node that depends on no input gives."""
    values: dict[fx.Node, Any] = {}
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            value: Any = module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            values[node] = value
        elif node.target is aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)  # what it promises was checked while tracing
        elif node.op == "call_function" and all(source in values for source in node.all_input_nodes):
            arguments, keywords = map_arg((node.args, node.kwargs), values.__getitem__)
            with torch.no_grad():
                values[node] = node.target(*arguments, **keywords)
    return values


def _matmul(x: Tensor, y: Tensor) -> Any:
    return torch.matmul(x, y[:, None]).squeeze(-1) if y.dim() == 1 else NotImplemented


def _max_pool2d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> Any:
    return NotImplemented if stride else aten.max_pool2d(x, kernel, kernel, padding, dilation, ceil_mode)


def _max_pool1d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Any:
    return NotImplemented if stride else aten.max_pool1d(x, kernel, kernel, padding, dilation, ceil_mode)


def _rfft(x: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
    return aten.fft_rfft(x, n, dim, "backward") if norm is None else NotImplemented


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    if mode != "circular":
        return NotImplemented
    # Pairs of before and after, from the last axis on.
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), 1):
        size = x.shape[-axis]
        parts = (x.narrow(-axis, size - before, before), x, x.narrow(-axis, 0, after))
        x = torch.cat([part for part in parts if part.shape[-axis]], dim=-axis)
    return x


def _sinc(x: Tensor) -> Tensor:
    angle = torch.pi * x
    at_zero = (angle == 0).to(x.dtype)  # where both become one
    return (torch.sin(angle) + at_zero) / (angle + at_zero)


def _same(x: Tensor) -> Tensor:
    return aten.clone(x)


# What is rewritten; NotImplemented leaves an operation as it is.
_TABLE: dict[Any, Callable[..., Any]] = {
    aten.__and__.Tensor: torch.logical_and,
    aten.__or__.Tensor: torch.logical_or,
    aten.matmul.default: _matmul,
    aten.max_pool1d.default: _max_pool1d,
    aten.max_pool2d.default: _max_pool2d,
    aten.fft_rfft.default: _rfft,
    aten.pad.default: _pad,
    aten.sinc.default: _sinc,
    aten.alias.default: _same,
}
