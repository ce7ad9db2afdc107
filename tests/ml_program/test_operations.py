"""Every kind of operation computes what coremltools computes, else what its documentation says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.activations import activation_spans
from runtimes.graphs import read_graph
from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.kinds import KINDS
from runtimes.ml_program.package import read_package
from runtimes.mlpackage import import_coremltools, quiet
from tests.ml_program.cases import BIAS, INPUTS, NORM, WEIGHT, cases, uninferred
from tests.ml_program.programs import TOLERANCE, save

pytest.importorskip("coremltools")


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


@pytest.mark.parametrize("bad", [0, 1])
def test_values_that_are_no_numbers_are_told_whichever_clip_has_them(
    bad: int, mb: Any, tmp_path: Path
) -> None:
    path = save(mb, lambda x: mb.sqrt(x=x), [mb.TensorSpec((1, 4))], tmp_path / "root.mlpackage")
    clips = np.ones((2, 4), np.float32)
    clips[bad] = -1
    (span,) = activation_spans(path, read_graph(path), clips)
    assert (span.kind, span.overflows) == ("sqrt", True)
