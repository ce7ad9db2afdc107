"""One case or more of every kind of operation that the evaluator knows, built from the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Build = Callable[[Any, dict[str, Any]], Any]
SHAPE = (2, 3, 4, 6)
RANDOM = np.random.default_rng(0)
INPUTS = {
    "x": RANDOM.standard_normal(SHAPE).astype(np.float32),
    "y": RANDOM.standard_normal(SHAPE).astype(np.float32),
    "p": RANDOM.uniform(0.1, 3, SHAPE).astype(np.float32),
    "i": RANDOM.integers(-3, 3, (4,)).astype(np.int32),
    "j": RANDOM.integers(0, 3, SHAPE).astype(np.int32),
}
BINARY = ("add", "sub", "mul", "maximum", "minimum")
COMPARISONS = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
UNARY = (
    *("abs", "ceil", "cos", "erf", "exp", "exp2", "floor", "identity", "relu", "round", "sigmoid", "sign"),
    *("sin", "softplus", "softsign", "square", "tanh"),
)
REDUCTIONS = (
    *("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_sum_square", "reduce_l1_norm"),
    *("reduce_l2_norm", "reduce_log_sum_exp"),
)


def as_float(mb: Any, v: Any) -> Any:
    return mb.cast(x=v, dtype="fp32")


def each(names: tuple[str, ...], build: Callable[[Any, dict[str, Any], Any], Any]) -> dict[str, Build]:
    """Builds kinds that take the same arguments."""
    return {name: partial(lambda name, mb, v: build(mb, v, getattr(mb, name)), name) for name in names}


def cases() -> dict[str, Build]:
    """Each kind of operation, built from the inputs; what it gives is compared."""
    built = each(BINARY, lambda mb, v, kind: kind(x=v["x"], y=v["y"]))
    built |= each(UNARY, lambda mb, v, kind: kind(x=v["x"]))
    built |= each(
        COMPARISONS, lambda mb, v, kind: as_float(mb, kind(x=mb.round(x=v["x"]), y=mb.round(x=v["y"])))
    )
    built |= each(REDUCTIONS, lambda mb, v, kind: kind(x=v["p"], axes=[1, -1], keep_dims=True))
    built |= each(
        ("logical_and", "logical_or", "logical_xor"),
        lambda mb, v, kind: as_float(mb, kind(x=mb.greater(x=v["x"], y=0.0), y=mb.greater(x=v["y"], y=0.0))),
    )
    return (
        built
        | {
            "real_div": lambda mb, v: mb.real_div(x=v["x"], y=v["p"]),
            "floor_div": lambda mb, v: mb.floor_div(x=v["x"], y=v["p"]),
            "mod": lambda mb, v: mb.mod(x=v["x"], y=v["p"]),
            "pow": lambda mb, v: mb.pow(x=v["p"], y=v["y"]),
            "sqrt": lambda mb, v: mb.sqrt(x=v["p"]),
            "rsqrt": lambda mb, v: mb.rsqrt(x=v["p"], epsilon=1e-3),
            "inverse": lambda mb, v: mb.inverse(x=v["p"], epsilon=1e-2),
            "log": lambda mb, v: mb.log(x=v["p"], epsilon=1e-3),
            "clip": lambda mb, v: mb.clip(x=v["x"], alpha=-0.5, beta=0.25),
            "elu": lambda mb, v: mb.elu(x=v["x"], alpha=1.5),
            "leaky_relu": lambda mb, v: mb.leaky_relu(x=v["x"], alpha=0.2),
            "gelu": lambda mb, v: mb.gelu(x=v["x"], mode="EXACT"),
            "gelu, tanh": lambda mb, v: mb.gelu(x=v["x"], mode="TANH_APPROXIMATION"),
            "softmax": lambda mb, v: mb.softmax(x=v["x"], axis=1),
            "cumsum": lambda mb, v: mb.cumsum(x=v["x"], axis=2),
            "logical_not": lambda mb, v: as_float(mb, mb.logical_not(x=mb.greater(x=v["x"], y=0.0))),
            "select": lambda mb, v: mb.select(cond=mb.greater(x=v["x"], y=0.0), a=v["y"], b=v["p"]),
            "cast": lambda mb, v: as_float(mb, mb.cast(x=mb.mul(x=v["x"], y=3.0), dtype="int32")),
            "reshape": lambda mb, v: mb.reshape(x=v["x"], shape=[3, -1, 8]),
            "expand_dims": lambda mb, v: mb.expand_dims(x=mb.reduce_sum(x=v["x"], axes=[0, 1]), axes=[0, -2]),
            "squeeze": lambda mb, v: mb.squeeze(
                x=mb.reduce_sum(x=v["x"], axes=[1, 3], keep_dims=True), axes=[3]
            ),
            "transpose": lambda mb, v: mb.transpose(x=v["x"], perm=[2, 0, 3, 1]),
            "reverse": lambda mb, v: mb.reverse(x=v["x"], axes=[1, 3]),
            "tile": lambda mb, v: mb.tile(x=v["x"], reps=[1, 2, 1, 3]),
            "fill": lambda mb, v: mb.add(x=v["x"], y=mb.fill(shape=[4, 6], value=2.5)),
            "concat": lambda mb, v: mb.concat(values=[v["x"], v["y"], INPUTS["p"]], axis=2),
            "stack": lambda mb, v: mb.stack(values=[v["x"], v["y"]], axis=1),
            "split": lambda mb, v: mb.split(x=v["x"], split_sizes=[1, 3, 2], axis=3)[1],
            "split, even": lambda mb, v: mb.split(x=v["x"], num_splits=3, axis=1)[2],
            "slice_by_index": lambda mb, v: mb.slice_by_index(
                x=v["x"],
                begin=[0, 2, -3, 1],
                end=[0, 0, 4, 6],
                stride=[1, -1, 1, 2],
                begin_mask=[True, False, False, False],
                end_mask=[True, True, False, False],
            ),
            "slice_by_index, squeezed": lambda mb, v: mb.slice_by_index(
                x=v["x"], begin=[-1, 0, 0, 0], end=[0, 3, 4, 6], squeeze_mask=[True, False, False, False]
            ),
            "slice_by_size": lambda mb, v: mb.slice_by_size(x=v["x"], begin=[0, 1, 1, 0], size=[2, 1, -1, 3]),
            "sigmoid_hard": lambda mb, v: mb.sigmoid_hard(x=v["x"], alpha=0.4, beta=0.3),
            # Of a value of its own: coremltools overwrites what it is inferred from.
            "thresholded_relu": lambda mb, v: mb.thresholded_relu(x=mb.mul(x=v["x"], y=2.0), alpha=0.5),
            "pad": lambda mb, v: mb.pad(x=v["x"], pad=[0, 0, 1, 2, 3, 0], mode="constant", constant_val=1.5),
            "pad, every axis named": lambda mb, v: mb.pad(
                x=v["x"], pad=[0, 0, 0, 0, 1, 1, 0, 0], mode="replicate"
            ),
            "pad, reflected": lambda mb, v: mb.pad(x=v["x"], pad=[1, 2, 2, 1], mode="reflect"),
            "gather": lambda mb, v: mb.gather(x=v["x"], indices=v["i"], axis=1),
            "gather_along_axis": lambda mb, v: mb.gather_along_axis(x=v["x"], indices=v["j"], axis=1),
            "topk": lambda mb, v: mb.topk(x=v["x"], k=3, axis=3)[0],
            "topk, places": lambda mb, v: as_float(mb, mb.topk(x=v["x"], k=2, axis=2, ascending=True)[1]),
            "linear": lambda mb, v: mb.linear(
                x=v["x"], weight=INPUTS["y"][0, 0], bias=INPUTS["p"][0, 0, :, 0]
            ),
            "matmul": lambda mb, v: mb.matmul(x=v["x"], y=v["y"], transpose_y=True),
            "matmul, both turned": lambda mb, v: mb.matmul(
                x=v["x"], y=mb.transpose(x=v["y"], perm=[0, 1, 3, 2]), transpose_x=True, transpose_y=True
            ),
            "einsum": lambda mb, v: mb.einsum(
                values=(v["x"], mb.transpose(x=v["y"], perm=[0, 3, 2, 1])), equation="nchw,nwhu->nchu"
            ),
            "layer_norm": lambda mb, v: mb.layer_norm(
                x=v["x"], axes=[3], gamma=INPUTS["p"][0, 0, 0], beta=INPUTS["y"][0, 0, 0], epsilon=1e-3
            ),
            "layer_norm, outer": lambda mb, v: mb.layer_norm(
                x=v["x"], axes=[1], gamma=INPUTS["p"][0, :, 0, 0], beta=INPUTS["y"][0, :, 0, 0], epsilon=1e-3
            ),
        }
        | uninferred()
    )


WEIGHT = RANDOM.standard_normal((4, 3, 2, 3)).astype(np.float32)
BIAS = RANDOM.standard_normal(4).astype(np.float32)
NORM = {name: RANDOM.uniform(0.5, 2, 3).astype(np.float32) for name in ("mean", "variance", "gamma", "beta")}


def uninferred() -> dict[str, Build]:
    """The kinds for which coremltools has no arithmetic; `by_hand` has them in NumPy."""
    return {
        "silu": lambda mb, v: mb.silu(x=v["x"]),
        "quantize": lambda mb, v: mb.dequantize(
            input=mb.quantize(
                input=v["x"], scale=np.float32(0.02), zero_point=np.int8(-7), output_dtype="int8"
            ),
            scale=np.float32(1.0),
        ),
        "dequantize": lambda mb, v: mb.dequantize(
            input=mb.quantize(
                input=v["x"],
                scale=np.array([0.01, 0.02, 0.5], np.float32),
                zero_point=np.array([3, 128, 0], np.uint8),
                axis=1,
                output_dtype="uint8",
            ),
            scale=np.array([0.5, 0.02, 0.1], np.float32),
            zero_point=np.array([3, 100, 9], np.uint8),
            axis=1,
        ),
        "conv": lambda mb, v: mb.conv(
            x=v["x"], weight=WEIGHT, bias=BIAS, strides=[1, 2], pad_type="custom", pad=[1, 0, 2, 1]
        ),
        "conv, same": lambda mb, v: mb.conv(x=v["x"], weight=WEIGHT, pad_type="same", strides=[2, 2]),
        "conv, grouped": lambda mb, v: mb.conv(x=v["x"], weight=WEIGHT[:3, :1], groups=3, dilations=[2, 1]),
        "max_pool": lambda mb, v: mb.max_pool(
            x=v["x"], kernel_sizes=[2, 3], strides=[1, 2], pad_type="custom", pad=[1, 1, 0, 2]
        ),
        "avg_pool": lambda mb, v: mb.avg_pool(
            x=v["x"], kernel_sizes=[2, 3], strides=[2, 3], pad_type="valid"
        ),
        "batch_norm": lambda mb, v: mb.batch_norm(x=v["x"], epsilon=1e-2, **NORM),
        "instance_norm": lambda mb, v: mb.instance_norm(
            x=v["x"], gamma=NORM["gamma"], beta=NORM["beta"], epsilon=1e-2
        ),
    }
