"""Teaches litert-torch, while it converts, the operations of TFLite that it takes apart otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def elu_as_one_operation() -> Iterator[None]:
    """Makes litert-torch keep ELU with alpha 1, and leaky ReLU, as what TFLite has for them.

    Its own way is exp, sub, mul, greater_equal and select, of which XNNPACK refuses the last two,
    with a transpose before and another behind. The encoders of AASIST and its like activate their
    largest maps so.
    """
    import torch
    from litert_converter.mlir import ir
    from litert_torch._convert.fx_passes.optimize_layout_transposes_pass.layout_rewrite import rewriters
    from litert_torch.backend.lowerings import registry

    elu, leaky_relu = torch.ops.aten.elu.default, torch.ops.aten.leaky_relu.default
    lowerings = registry.global_registry.registered_ops
    kept = {op: lowerings[op] for op in (elu, leaky_relu)}

    def lower_elu(context: Any, x: Any, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
        if (alpha, scale, input_scale) != (1, 1, 1):
            return kept[elu](context, x, alpha, scale, input_scale)
        return _tflite_operation(context, "tfl.elu", x)

    def lower_leaky_relu(context: Any, x: Any, negative_slope: float = 0.01) -> Any:
        slope = ir.FloatAttr.get(ir.F32Type.get(), negative_slope)
        return _tflite_operation(context, "tfl.leaky_relu", x, alpha=slope)

    lowerings.update({elu: lower_elu, leaky_relu: lower_leaky_relu})
    rewriters[elu] = lambda node: None  # it is the same whether channels come first or last
    try:
        yield
    finally:
        lowerings.update(kept)
        del rewriters[elu]


def _tflite_operation(context: Any, name: str, x: Any, **attributes: Any) -> Any:
    """Returns an operation of TFLite in the form in which the converter hands it through."""
    from litert_converter.mlir import ir
    from litert_converter.mlir.dialects import stablehlo
    from litert_torch.backend.lowerings.utils import node_meta_to_ir_types

    return stablehlo.custom_call(
        result=node_meta_to_ir_types(context.node),
        inputs=[x],
        call_target_name=ir.StringAttr.get(name),
        has_side_effect=ir.BoolAttr.get(False),
        backend_config=ir.StringAttr.get(str(ir.DictAttr.get(attributes))),
    )
