"""The integer recipes without calibration: weights alone, and dynamic ranges."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import ModelProto

from antispoof.errors import UserError
from quantize.onnx_graph import QDQ_16_BIT_OPSET, OnnxGraph
from quantize.recipes import Recipe
from quantize.scope import layers_in_scope, recurrent_layers
from quantize.weights import fold_weights

DYNAMIC = ("MatMul", "Gemm")  # not Conv: its dynamic kernel is 4.5 times slower than the float one


def weights_only(model: ModelProto, recipe: Recipe) -> ModelProto:
    """Returns the model with integer weights; it computes in float, so only the file becomes smaller."""
    graph = OnnxGraph(model)
    for layer in (*layers_in_scope(graph, recipe.everything), *recurrent_layers(graph)):
        fold_weights(graph, layer, recipe)
    return graph.finish(QDQ_16_BIT_OPSET if recipe.weight_bits == 4 else None)


def dynamic(model: ModelProto, recipe: Recipe) -> ModelProto:
    """Returns the model with integer projections whose input's range is found in every run.

    Convolutions and recurrent layers keep float activations; their weights are stored in integers too.

    Raises:
        UserError: The model has no projection that is large enough.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    layers = layers_in_scope(OnnxGraph(model), recipe.everything)
    projections = [layer.node.name for layer in layers if not layer.is_convolution]
    if not projections:  # to the quantizer, no name would mean all
        raise UserError(
            f"{recipe.name} is for large projections, of which this model has none; "
            f"{replace(recipe, activations='float', activation_bits=32).name} stores its weights as small"
        )
    logger = logging.getLogger()
    level = logger.level
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "dynamic.onnx")
        onnx.save(model, source)
        logger.setLevel(logging.ERROR)  # it advises steps that change nothing here
        try:
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=list(DYNAMIC),
                nodes_to_quantize=projections,
                per_channel=True,
                reduce_range=recipe.reduced_range,
                weight_type=QuantType.QInt8,
            )
        finally:
            logger.setLevel(level)
        graph = OnnxGraph(onnx.load(target))
    convolutions = [layer for layer in layers_in_scope(graph, recipe.everything) if layer.is_convolution]
    for layer in (*convolutions, *recurrent_layers(graph)):
        fold_weights(graph, layer, recipe)
    return graph.finish()
