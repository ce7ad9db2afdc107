"""Infers the shape of every value of an ONNX graph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from antispoof.errors import UserError, one_line
from antispoof.graph_cost import RANDOM_KINDS, Value

SMALL = 1024  # elements; larger constants are no shapes or axes, which inference would want to see
LARGEST_FOLDED = 1 << 20  # elements; no shape is computed from more
ROUNDS = 64  # of inferring and folding; each settles what the last one made known


def with_shapes(model: Any) -> tuple[Any, tuple[str, ...]]:
    """Returns a copy of the model with the shape of every value, and which inputs have none of their own.

    Weights stand in it as inputs of their shape, since inference needs no more of them. Axes that a run
    decides are taken for 1.
    """
    import onnx
    import onnx.inliner

    light = _without_weights(model)
    dynamic = []
    for row in light.graph.input:
        dims = row.type.tensor_type.shape.dim
        if any(not dim.dim_value for dim in dims):
            dynamic.append(f"{row.name} [{', '.join(str(d.dim_value or d.dim_param or '?') for d in dims)}]")
            for dim in dims:
                dim.dim_value = dim.dim_value or 1
    del light.graph.value_info[:]  # of other shapes, where axes were fixed
    kept = {row.name for row in light.graph.initializer}
    for row in model.graph.initializer:
        if row.name not in kept:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(row.name, row.data_type, list(row.dims))
            )
    try:
        _check(light)
        if dynamic:
            for row in light.graph.output:
                row.type.tensor_type.ClearField("shape")
        if light.functions:
            light = onnx.inliner.inline_local_functions(light)
        return _settled(light), tuple(dynamic)
    except Exception as error:  # C++ raises a type of its own for each way a graph can be wrong
        raise UserError(f"not a valid ONNX model ({one_line(error)[:160]})") from error


def _check(light: Any) -> None:
    """Raises what onnx has to say against a model; that an output has no shape, it has for an error."""
    import onnx

    shapeless = [row for row in light.graph.output if not row.type.tensor_type.HasField("shape")]
    for row in shapeless:
        row.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(light)
    for row in shapeless:
        row.type.tensor_type.ClearField("shape")


def _settled(light: Any) -> Any:
    """Returns the model with inferred shapes, where need be after computing those that nodes compute.

    The older of torch's exporters leaves long chains of nodes that compute the shape of an Expand.
    """
    from onnx import shape_inference

    for _ in range(ROUNDS):
        inferred = shape_inference.infer_shapes(light, data_prop=True)
        shaped = {row.name for row in (*inferred.graph.value_info, *inferred.graph.output) if _known(row)}
        if all(name in shaped for node in inferred.graph.node for name in node.output if name):
            return inferred
        if not _fold(light, inferred):
            return inferred
    return inferred


def _fold(light: Any, inferred: Any) -> bool:
    """Replaces, in ``light``, nodes that give the same at every run by what they give."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    shapes = {row.name: typed(row.type).shape for row in (*inferred.graph.input, *inferred.graph.value_info)}
    ready = {row.name for row in light.graph.initializer}
    nodes, shape_of, kept = [], {}, []
    for node in light.graph.node:
        if node.op_type == "Shape" and not node.attribute and shapes.get(node.input[0]) is not None:
            shape_of[node.output[0]] = np.array(shapes[node.input[0]], np.int64)
        elif ready.issuperset({name for name in node.input if name}) and not _keeps(node, shapes):
            nodes.append(node)
        else:
            kept.append(node)
            continue
        ready.update(node.output)
    found = {**shape_of}
    if nodes:
        names = [name for node in nodes for name in node.output if name]
        constants = [*light.graph.initializer, *(numpy_helper.from_array(v, k) for k, v in shape_of.items())]
        outputs = [helper.make_empty_tensor_value_info(name) for name in names]
        graph = helper.make_graph(nodes, "constants", [], outputs, constants)
        model = helper.make_model(graph, opset_imports=light.opset_import, ir_version=light.ir_version)
        results = ReferenceEvaluator(model).run(None, {})
        found.update({k: np.asarray(v) for k, v in zip(names, results, strict=True)})
    del light.graph.node[:]
    light.graph.node.extend(kept)
    light.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in found.items())
    return bool(found)


def _keeps(node: Any, shapes: dict[str, Any]) -> bool:
    """Whether a node of constants stays: random ones, those that hold graphs, those that give much."""
    sizes = [math.prod(shapes.get(name) or ()) for name in node.output]
    inner = any(row.HasField("g") for row in node.attribute)
    return node.op_type in RANDOM_KINDS or inner or max(sizes, default=0) > LARGEST_FOLDED


def _known(row: Any) -> bool:
    return typed(row.type).shape is not None


def _without_weights(model: Any) -> Any:
    """Returns the model without its large constants; the original keeps them."""
    import onnx

    light = onnx.ModelProto()
    for name in ("ir_version", "opset_import", "functions"):
        value = getattr(model, name)
        if isinstance(value, int):
            setattr(light, name, value)
        else:
            getattr(light, name).extend(value)
    graph = light.graph
    graph.name = model.graph.name or "graph"
    constants = {row.name for row in model.graph.initializer}
    graph.node.extend(model.graph.node)
    graph.input.extend(row for row in model.graph.input if row.name not in constants)
    graph.output.extend(model.graph.output)
    graph.initializer.extend(row for row in model.graph.initializer if np.prod(row.dims) <= SMALL)
    return light


def typed(kind: Any) -> Value:
    """Returns the type and shape that a graph declares for a value."""
    from onnx import helper

    tensor = kind.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:  # a sequence, or not told
        dtype = "unknown"
    if not tensor.HasField("shape") or any(not dim.HasField("dim_value") for dim in tensor.shape.dim):
        return Value(dtype, None)
    return Value(dtype, tuple(dim.dim_value for dim in tensor.shape.dim))
