"""Compressed and narrow weights are opened as coremltools opens them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtimes.ml_program.blobs import Blobs
from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.kinds import KINDS
from runtimes.ml_program.package import read_package
from runtimes.mlpackage import import_coremltools, quiet
from tests.ml_program.programs import TOLERANCE

pytest.importorskip("coremltools")


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
