"""Stores an ONNX graph in float16, input and output excepted.

Half the size and, on processors without float16 arithmetic, no faster: ONNX Runtime computes in float32
there.
"""

from __future__ import annotations

import warnings

from onnx import ModelProto

# What float16 harms: exponents of a selective scan, and sums over comparisons that give ranks.
FLOAT32_OPERATIONS = ("Scan", "ReduceSum")


def to_float16(model: ModelProto, *, mixed: bool = False) -> ModelProto:
    """Returns the model in float16.

    Args:
        model: In float32.
        mixed: Leave `FLOAT32_OPERATIONS` as they are.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    blocked = [*DEFAULT_OP_BLOCK_LIST, "Scan", *(FLOAT32_OPERATIONS if mixed else ())]
    copy = ModelProto.FromString(model.SerializeToString())
    with warnings.catch_warnings():
        # It warns of every constant too small for float16, which becomes the smallest there is.
        warnings.simplefilter("ignore")
        return convert_float_to_float16(copy, keep_io_types=True, op_block_list=blocked)
