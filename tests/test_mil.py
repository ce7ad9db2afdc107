"""The evaluator of ML Programs, held against coremltools' own arithmetic, NumPy's and damaged files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antispoof.errors import UserError
from runtimes.ml_program import schema
from runtimes.ml_program.blobs import Blobs
from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.kinds import KINDS
from runtimes.ml_program.package import read_package
from runtimes.ml_program.wire import decode
from runtimes.mlpackage import import_coremltools, quiet

# NumPy and PyTorch order sums and approximate functions differently; a few float32 roundings of values
# around 10 stay below this.
TOLERANCE = 1e-5

pytest.importorskip("coremltools")
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
            "pad": lambda mb, v: mb.pad(x=v["x"], pad=[0, 0, 1, 2, 3, 0], mode="constant", constant_val=1.5),
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


def slide(
    x: np.ndarray, window: tuple[int, int], stride: tuple[int, int], step: tuple[int, int] = (1, 1)
) -> Any:
    """Yields the place and content of every window over the last two axes."""
    reach = [(size - 1) * gap + 1 for size, gap in zip(window, step, strict=True)]
    for row in range((x.shape[2] - reach[0]) // stride[0] + 1):
        for column in range((x.shape[3] - reach[1]) // stride[1] + 1):
            top, left = row * stride[0], column * stride[1]
            yield row, column, x[:, :, top : top + reach[0] : step[0], left : left + reach[1] : step[1]]


def by_hand(name: str) -> np.ndarray:
    """What the kinds of `uninferred` mean, in NumPy, straight from MIL's documentation."""
    x = INPUTS["x"].astype(np.float64)
    across = {key: values[:, None, None].astype(np.float64) for key, values in NORM.items()}
    if name == "silu":
        return x / (1 + np.exp(-x))
    if name == "quantize":
        return np.clip(np.round(INPUTS["x"] / np.float32(0.02)) - 7, -128, 127)
    if name == "dequantize":
        scale, zero, by, origin = (
            np.array(row)[:, None, None]
            for row in ([0.01, 0.02, 0.5], [3, 128, 0], [0.5, 0.02, 0.1], [3, 100, 9])
        )
        steps = np.clip(np.round(INPUTS["x"] / scale.astype(np.float32)) + zero, 0, 255)
        return (steps - origin) * by
    if name == "batch_norm":
        normal = (x - across["mean"]) / np.sqrt(across["variance"] + 1e-2)
        return normal * across["gamma"] + across["beta"]
    if name == "instance_norm":
        mean, variance = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-2) * across["gamma"] + across["beta"]
    window, stride, step, pads, fill = {
        "conv": ((2, 3), (1, 2), (1, 1), ((1, 0), (2, 1)), 0.0),
        "conv, same": ((2, 3), (2, 2), (1, 1), ((0, 0), (0, 1)), 0.0),
        "conv, grouped": ((2, 3), (1, 1), (2, 1), ((0, 0), (0, 0)), 0.0),
        "max_pool": ((2, 3), (1, 2), (1, 1), ((1, 1), (0, 2)), -np.inf),
        "avg_pool": ((2, 3), (2, 3), (1, 1), ((0, 0), (0, 0)), 0.0),
    }[name]
    places = list(slide(np.pad(x, ((0, 0), (0, 0), *pads), constant_values=fill), window, stride, step))
    out: dict[tuple[int, int], np.ndarray] = {}
    for row, column, content in places:
        if name in ("max_pool", "avg_pool"):
            out[row, column] = content.max((2, 3)) if name == "max_pool" else content.mean((2, 3))
        elif name == "conv, grouped":
            out[row, column] = (content * WEIGHT[:3, 0]).sum((2, 3))
        else:
            bias = BIAS if name == "conv" else 0
            out[row, column] = np.einsum("bcij,ocij->bo", content, WEIGHT) + bias
    rows, columns = (max(key[axis] for key in out) + 1 for axis in (0, 1))
    return np.stack(
        [np.stack([out[row, column] for column in range(columns)], -1) for row in range(rows)], -2
    )


@pytest.fixture(scope="module")
def mb() -> Any:
    import_coremltools()
    from coremltools.converters.mil import Builder

    return Builder


def save(
    mb: Any, build: Callable[..., Any], specs: list[Any], path: Path, target: str = "iOS17", **kwargs: Any
) -> Path:
    """Writes a program as coremltools does, unchanged by its optimisations."""
    coremltools = import_coremltools()
    with quiet():
        program = mb.program(input_specs=specs, opset_version=coremltools.target[target])(build)
        model = coremltools.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target[target],
            pass_pipeline=coremltools.PassPipeline.EMPTY,
            skip_model_load=True,
            **kwargs,
        )
        model.save(str(path))
    return path


def inferred(mb: Any) -> dict[str, np.ndarray | None]:
    """What coremltools itself computes for each case while it builds a program of constants."""
    coremltools = import_coremltools()
    found: dict[str, np.ndarray | None] = {}

    def build(unused: Any) -> Any:
        constants = {name: mb.const(val=value) for name, value in INPUTS.items()}
        for name, case in cases().items():
            found[name] = case(mb, constants).val
        return mb.identity(x=unused)

    with quiet():
        mb.program(input_specs=[mb.TensorSpec((1,))], opset_version=coremltools.target.iOS17)(build)
    return found


@pytest.fixture(scope="module")
def outputs(mb: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What the evaluator computes for each case, after reading one package that holds all of them."""
    from coremltools.converters.mil.mil import types

    kinds = {"f": types.fp32, "i": types.int32}
    specs = [mb.TensorSpec(value.shape, kinds[value.dtype.kind]) for value in INPUTS.values()]

    def build(x: Any, y: Any, p: Any, i: Any, j: Any) -> Any:
        values = dict(zip(INPUTS, (x, y, p, i, j), strict=True))
        return tuple(
            mb.identity(x=case(mb, values), name=f"case_{index}")
            for index, case in enumerate(cases().values())
        )

    path = save(
        mb,
        build,
        specs,
        tmp_path_factory.mktemp("kinds") / "all.mlpackage",
        compute_precision=import_coremltools().precision.FLOAT32,
    )
    given = Evaluator(read_package(path)).run(INPUTS)
    return {name: given[f"case_{index}"] for index, name in enumerate(cases())}


def test_every_kind_computes_what_coremltools_computes(mb: Any, outputs: dict[str, np.ndarray]) -> None:
    expected = inferred(mb)
    assert {name for name, value in expected.items() if value is None} == set(uninferred())
    for name, value in expected.items():
        if value is not None:
            np.testing.assert_allclose(
                outputs[name], np.asarray(value, np.float64), atol=TOLERANCE, rtol=TOLERANCE, err_msg=name
            )


@pytest.mark.parametrize("name", uninferred())
def test_kinds_without_a_reference_compute_what_their_documentation_says(
    name: str, outputs: dict[str, np.ndarray]
) -> None:
    np.testing.assert_allclose(outputs[name], by_hand(name), atol=TOLERANCE, rtol=TOLERANCE)


def test_every_kind_is_tested() -> None:
    named = {name.partition(",")[0] for name in cases()}
    assert {kind for kind in KINDS if not kind.startswith("constexpr_")} - named <= {"shape"}


def test_half_precision_rounds_and_overflows_as_numpy_does(mb: Any, tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import types

    x = np.concatenate([INPUTS["x"].reshape(-1), [300.0, -300.0, 1e-5, 3e-8]]).astype(np.float32)

    def build(x: Any) -> Any:
        half = mb.cast(x=x, dtype="fp16")
        squared = mb.mul(x=half, y=half)
        third = mb.real_div(x=half, y=np.float16(3))
        return mb.cast(x=squared, dtype="fp32", name="squared"), mb.cast(x=third, dtype="fp32", name="third")

    path = save(mb, build, [mb.TensorSpec(x.shape, types.fp32)], tmp_path / "half.mlpackage")
    given = Evaluator(read_package(path)).run({"x": x})
    half = x.astype(np.float16)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(given["squared"], (half * half).astype(np.float32))
    np.testing.assert_array_equal(given["third"], (half / np.float16(3)).astype(np.float32))
    assert np.isinf(given["squared"]).sum() == 2


@pytest.fixture(scope="module")
def plain_model(mb: Any) -> Callable[[str], Any]:
    """Builds a linear layer large enough that coremltools compresses it."""
    coremltools = import_coremltools()
    weight = np.random.default_rng(1).standard_normal((64, 48)).astype(np.float32)

    def build(target: str) -> Any:
        with quiet():
            program = mb.program(
                input_specs=[mb.TensorSpec((1, 48))], opset_version=coremltools.target[target]
            )(lambda x: mb.linear(x=x, weight=weight, bias=np.zeros(64, np.float32), name="y"))
            return coremltools.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target[target],
                compute_precision=coremltools.precision.FLOAT32,
                skip_model_load=True,
            )

    return build


def compressions() -> dict[str, tuple[str, list[tuple[str, Any]]]]:
    return {
        "int8": ("iOS17", [("linear_quantize_weights", {"mode": "linear", "dtype": "int8"})]),
        "palette": ("iOS17", [("palettize_weights", {"mode": "uniform", "nbits": 6})]),
        "sparse": ("iOS17", [("prune_weights", {"target_sparsity": 0.6})]),
        "int4 in blocks": (
            "iOS18",
            [
                (
                    "linear_quantize_weights",
                    {"mode": "linear", "dtype": "int4", "granularity": "per_block", "block_size": 16},
                )
            ],
        ),
        "palettes of groups": (
            "iOS18",
            [
                (
                    "palettize_weights",
                    {
                        "mode": "uniform",
                        "nbits": 3,
                        "granularity": "per_grouped_channel",
                        "group_size": 16,
                    },
                )
            ],
        ),
        "sparse palette": (
            "iOS18",
            [
                ("prune_weights", {"target_sparsity": 0.5}),
                ("palettize_weights", {"mode": "uniform", "nbits": 4}),
            ],
        ),
        "sparse int8": (
            "iOS18",
            [
                ("prune_weights", {"target_sparsity": 0.5}),
                ("linear_quantize_weights", {"mode": "linear_symmetric", "dtype": "int8"}),
            ],
        ),
    }


CONFIGS = {
    "linear_quantize_weights": "OpLinearQuantizerConfig",
    "palettize_weights": "OpPalettizerConfig",
    "prune_weights": "OpMagnitudePrunerConfig",
}


@pytest.mark.parametrize("name", compressions())
def test_compressed_weights_are_opened_as_coremltools_opens_them(
    name: str, plain_model: Callable[[str], Any], tmp_path: Path
) -> None:
    import_coremltools()
    import coremltools.optimize.coreml as compress

    target, passes = compressions()[name]
    model = plain_model(target)
    with quiet():
        for index, (function, options) in enumerate(passes):
            config = compress.OptimizationConfig(
                getattr(compress, CONFIGS[function])(weight_threshold=0, **options)
            )
            joint = {"joint_compression": True} if index else {}
            model = getattr(compress, function)(model, config, **joint)
        model.save(str(tmp_path / "small.mlpackage"))
    x = np.random.default_rng(2).standard_normal((1, 48)).astype(np.float32)
    program = read_package(tmp_path / "small.mlpackage")
    assert any(op.kind.startswith("constexpr_") for op in program.operations)
    (linear,) = (op for op in model._mil_program.functions["main"].operations if op.op_type == "linear")
    weight = linear.weight.op.materialized_val_inference()
    given = Evaluator(program).run({"x": x})["y"]
    np.testing.assert_allclose(given, x @ weight.T, atol=TOLERANCE, rtol=TOLERANCE)


def test_every_kind_of_compression_is_tested(mb: Any) -> None:
    """`constexpr_cast` alone is left to its definition: no compressor writes it."""
    seen = {
        "constexpr_affine_dequantize",
        "constexpr_blockwise_shift_scale",
        "constexpr_lut_to_dense",
        "constexpr_lut_to_sparse",
        "constexpr_sparse_blockwise_shift_scale",
        "constexpr_sparse_to_dense",
    }
    assert {kind for kind in KINDS if kind.startswith("constexpr_")} == seen | {"constexpr_cast"}


def test_vectors_of_a_palette_fill_the_axis_that_is_named() -> None:
    from coremltools.converters.mil.mil.ops.defs.iOS18.compression import constexpr_lut_to_dense

    random = np.random.default_rng(3)
    indices = random.integers(0, 4, (4, 6)).astype(np.uint8)
    lut = random.standard_normal((2, 1, 4, 3)).astype(np.float32)
    for axis in (0, 1):
        given = KINDS["constexpr_lut_to_dense"].function(
            torch.from_numpy(indices), torch.from_numpy(lut), None, axis
        )
        np.testing.assert_array_equal(given.numpy(), constexpr_lut_to_dense.decompress(indices, lut, axis))


def test_narrow_integers_are_unpacked_as_they_were_packed(tmp_path: Path) -> None:
    import_coremltools()
    from coremltools.libmilstoragepython import _BlobStorageWriter

    path = tmp_path / "weight.bin"
    values = {
        f"uint{bits}": (np.arange(11) * 7 % (1 << bits)).astype(np.uint8) for bits in (1, 2, 3, 4, 6, 8)
    } | {"int4": np.array([-8, 7, -1, 0, 3], np.int8), "int8": np.array([-128, 127, 5], np.int8)}
    writer = _BlobStorageWriter(str(path))
    offsets = {dtype: getattr(writer, f"write_{dtype}_data")(array) for dtype, array in values.items()}
    del writer  # closes the file
    blobs = Blobs(lambda name: path)
    for dtype, array in values.items():
        np.testing.assert_array_equal(blobs.read("w", offsets[dtype], dtype, array.shape), array)


@pytest.fixture(scope="module")
def package(mb: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small package with a weight file."""
    weight = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)

    def build(x: Any) -> Any:
        return mb.relu(x=mb.linear(x=mb.exp(x=x), weight=weight, bias=np.ones(8, np.float32)), name="y")

    return save(mb, build, [mb.TensorSpec((1, 8))], tmp_path_factory.mktemp("small") / "small.mlpackage")


def test_a_package_is_read_as_coremltools_reads_it(package: Path) -> None:
    import_coremltools()
    from coremltools.proto import Model_pb2

    content = (package / "Data" / "com.apple.CoreML" / "model.mlmodel").read_bytes()
    theirs = Model_pb2.Model.FromString(content)
    ours = decode(memoryview(content), schema.MODEL)
    assert ours["specificationVersion"] == theirs.specificationVersion
    (block,) = theirs.mlProgram.functions["main"].block_specializations.values()
    (mine,) = ours["mlProgram"]["functions"]["main"]["block_specializations"].values()
    assert [op["type"] for op in mine["operations"]] == [op.type for op in block.operations]
    assert mine["outputs"] == list(block.outputs)


def test_values_that_nothing_needs_any_more_are_let_go(package: Path) -> None:
    evaluator = Evaluator(read_package(package))
    values = evaluator._start({"x": np.zeros((1, 8), np.float32)})
    most = 0
    for _ in evaluator._steps(values):
        most = max(most, sum(value is not None for value in values))
    assert most <= 2


Break = Callable[[Path], object]


def manifest_of(package: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((package / "Manifest.json").read_text())
    return facts


def point_model_at(package: Path, where: str) -> None:
    facts = manifest_of(package)
    facts["itemInfoEntries"][facts["rootModelIdentifier"]]["path"] = where
    (package / "Manifest.json").write_text(json.dumps(facts))


def edit_model(package: Path, edit: Callable[[Any], object]) -> None:
    from coremltools.proto import Model_pb2

    file = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = Model_pb2.Model.FromString(file.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    edit(block.operations)
    file.write_bytes(model.SerializeToString())


def blob_of(operations: Any) -> Any:
    constants = [op.attributes["val"] for op in operations if op.type == "const"]
    return next(value for value in constants if value.HasField("blobFileValue"))


def weights_of(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def model_of(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "model.mlmodel"


def link_outside(package: Path) -> None:
    outside = package.parent / "outside.bin"
    shutil.move(weights_of(package), outside)
    weights_of(package).symlink_to(outside)


def file_for_a_package(package: Path) -> None:
    shutil.rmtree(package)
    package.write_text("hello")


def link_to_itself(package: Path) -> None:
    weights_of(package).unlink()
    weights_of(package).symlink_to(weights_of(package))


BROKEN: dict[str, tuple[Break, str]] = {
    "no manifest": (lambda p: (p / "Manifest.json").unlink(), "'Manifest.json' is missing"),
    "no JSON": (lambda p: (p / "Manifest.json").write_text("{"), "does not say where the model lies"),
    "deep JSON": (lambda p: (p / "Manifest.json").write_text("[" * 100_000), "does not say where"),
    "no root": (lambda p: (p / "Manifest.json").write_text("{}"), "does not say where the model lies"),
    "path upwards": (lambda p: point_model_at(p, "../../secret"), "outside itself"),
    "absolute path": (lambda p: point_model_at(p, "/etc/passwd"), "outside itself"),
    "null character": (lambda p: point_model_at(p, "a\0b"), "outside itself"),
    "path to nowhere": (lambda p: point_model_at(p, "com.apple.CoreML/other"), "is missing"),
    "no model": (lambda p: model_of(p).unlink(), "is missing"),
    "empty model": (lambda p: model_of(p).write_bytes(b""), "not an ML Program"),
    "cut model": (lambda p: cut(model_of(p), 200), "damaged"),
    "text for a model": (lambda p: model_of(p).write_text("hello" * 100), "no Core ML model"),
    "no weights": (lambda p: weights_of(p).unlink(), "weight.bin' is missing"),
    "linked weights": (link_outside, "outside itself"),
    "weights linked to themselves": (link_to_itself, "is missing"),
    "path too long": (lambda p: point_model_at(p, "a" * 5000), "is missing"),
    "cut weights": (lambda p: cut(weights_of(p), 200), "cut off"),
    "empty weights": (lambda p: weights_of(p).write_bytes(b""), "cut off"),
    "weights beyond the file": (
        lambda p: edit_model(p, lambda ops: setattr(blob_of(ops).blobFileValue, "offset", 1 << 60)),
        "outside the file",
    ),
    "weights inside another": (
        lambda p: edit_model(p, lambda ops: setattr(blob_of(ops).blobFileValue, "offset", 160)),
        "no weight begins there",
    ),
    "weights elsewhere": (
        lambda p: edit_model(
            p, lambda ops: setattr(blob_of(ops).blobFileValue, "fileName", "@model_path/../../../secret")
        ),
        "outside itself",
    ),
    "weights of another shape": (
        lambda p: edit_model(
            p, lambda ops: setattr(blob_of(ops).type.tensorType.dimensions[0].constant, "size", 9)
        ),
        "do not make",
    ),
    "weights of another type": (
        lambda p: edit_model(p, lambda ops: setattr(blob_of(ops).type.tensorType, "dataType", 10)),
        "holds float32, not float16",
    ),
    "unknown operation": (
        lambda p: edit_model(p, lambda ops: setattr(ops[-1], "type", "relu7")),
        "'relu7' .* is not supported",
    ),
    "unknown argument": (
        lambda p: edit_model(p, lambda ops: ops[-1].inputs["q"].CopyFrom(ops[-1].inputs["x"])),
        "relu 'y': the argument 'q'",
    ),
    "missing argument": (
        lambda p: edit_model(p, lambda ops: ops[-1].inputs.clear()),
        "relu 'y': the argument 'x' is missing",
    ),
    "undefined value": (
        lambda p: edit_model(p, lambda ops: setattr(ops[-1].inputs["x"].arguments[0], "name", "ghost")),
        "nothing before it computes 'ghost'",
    ),
    "a file for a package": (
        file_for_a_package,
        "no Core ML package",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_package_gets_one_line(how: str, package: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mlpackage"
    shutil.copytree(package, broken)
    damage, message = BROKEN[how]
    damage(broken)
    with pytest.raises(UserError, match=message) as error:
        Evaluator(read_package(broken))
    assert "\n" not in str(error.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), value=st.integers(0, 255), length=st.integers(1, 4), keep=st.floats(0.3, 1.5))
def test_any_damage_to_a_program_is_survived(
    place: float, value: int, length: int, keep: float, package: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.mlpackage"
    if not damaged.exists():
        shutil.copytree(package, damaged)
    content = bytearray(model_of(package).read_bytes())
    start = int(place * (len(content) - length))
    content[start : start + length] = bytes([value]) * length
    model_of(damaged).write_bytes(content[: int(keep * len(content))])
    try:
        evaluator = Evaluator(read_package(damaged))
        evaluator.run({name: np.zeros(kind.shape, np.float32) for name, kind in evaluator.program.inputs})
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - surviving is as good an outcome
