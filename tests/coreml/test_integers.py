"""Quantized Core ML packages, made and run without a Mac: the written weights are what their recipe says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from antispoof.errors import UserError
from antispoof.manifest import describe_file
from antispoof.manifest_reader import read_manifest
from antispoof.speechlike import speech_like_batch
from benchmarks import quantized
from benchmarks.gate import agreement
from benchmarks.trial_scores import find_clips
from export import to_coreml
from quantize import coreml_int8
from quantize.coreml_scope import activations_in_scope, front_end
from quantize.palette import palette_of
from runtimes import load
from runtimes.ml_program.package import read_package
from runtimes.ml_program.program import Program, Reference
from tests.quantized_copies import quantize, write_recordings

pytest.importorskip("coremltools")

SAMPLES = 8_000  # the shortest that leaves the last pooling something to pool
BUNDLED = Path(to_coreml.__file__).parents[1] / "antispoof" / "checkpoints" / "aasist-l.safetensors"


def export(folder: Path, *flags: str) -> Path:
    to_coreml.main(
        ["--checkpoint", str(BUNDLED), "--set", f"clip_samples={SAMPLES}", "--out", str(folder), *flags]
    )
    return folder / "aasist-l.mlpackage"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled detector for clips of half a second."""
    return export(tmp_path_factory.mktemp("float"))


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for iOS 18."""
    return export(tmp_path_factory.mktemp("newer"), "--target", "iOS18")


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return speech_like_batch(6, SAMPLES, seed=500)


@pytest.fixture(scope="module")
def source_scores(source: Path, clips: np.ndarray) -> np.ndarray:
    return load(source).score(clips)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few clips to calibrate on: the evaluator is not fast."""
    return write_recordings(tmp_path_factory.mktemp("recordings"), 4, SAMPLES)


@pytest.fixture(scope="module")
def quantized_package(
    source: Path, recordings: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Copies by recipe that several tests look at."""
    folder = tmp_path_factory.mktemp("quantized")
    return lru_cache(lambda recipe: quantize(coreml_int8.main, source, recipe, recordings, folder))


# Scores of the bundled model spread over about 5. Integer weights move them by hundredths, integer
# activations and coarse palettes by tenths.
LARGEST_MEDIAN = {"w8": 0.1, "w8a8": 0.5, "p6": 0.5, "f32-pruned": 1.5}
STORED_AS = {
    "w8": "constexpr_affine_dequantize",
    "w8a8": "constexpr_affine_dequantize",
    "p6": "constexpr_lut_to_dense",
    "f32-pruned": "constexpr_sparse_to_dense",
}


@pytest.mark.parametrize("recipe", sorted(LARGEST_MEDIAN))
def test_a_quantized_package_scores_nearly_like_its_source(
    recipe: str,
    source: Path,
    quantized_package: Callable[[str], Path],
    clips: np.ndarray,
    source_scores: np.ndarray,
) -> None:
    path = quantized_package(recipe)
    difference = np.abs(load(path).score(clips) - source_scores)
    assert 0 < np.median(difference) <= LARGEST_MEDIAN[recipe]
    assert describe_file(path).bytes < describe_file(source).bytes
    manifest = read_manifest(path)
    assert manifest.recipe == recipe
    program = read_package(path)
    assert program.metadata["antispoof"] == manifest.facts()
    assert Counter(op.kind for op in program.operations)[STORED_AS[recipe]] >= 12
    assert stored_whole(program, front_end(program))


def stored_whole(program: Program, layers: list[str]) -> bool:
    """Whether the weights of some layers, of which there are any, are stored as they were."""
    constants = {op.outputs[0][0] for op in program.operations if op.kind == "const"}
    read = [op.arguments["weight"].name for op in program.operations if op.name in layers]
    return bool(read) and set(read) <= constants


def test_the_same_clips_give_the_same_bytes(
    source: Path, recordings: Path, quantized_package: Callable[[str], Path], tmp_path: Path
) -> None:
    again = quantize(coreml_int8.main, source, "w8a8", recordings, tmp_path)
    assert describe_file(again) == describe_file(quantized_package("w8a8"))


def test_what_hears_the_waveform_reads_no_integers(
    source: Path, quantized_package: Callable[[str], Path]
) -> None:
    layers = activations_in_scope(read_package(source))
    program = read_package(quantized_package("w8a8"))
    rounded = {op.outputs[0][0] for op in program.operations if op.kind == "dequantize"}
    reads = {
        op.name: isinstance(op.arguments["x"], Reference) and op.arguments["x"].name in rounded
        for op in program.operations
        if op.kind in ("conv", "linear")
    }
    assert {name for name, integer in reads.items() if integer} == set(layers)
    convolutions = [op.name for op in program.operations if op.kind == "conv"]
    # The sinc filters, and the two convolutions that read the map of one channel made of them.
    assert set(convolutions) - set(layers) == {convolutions[0], convolutions[1], convolutions[3]}
    assert len(layers) == len(convolutions) - 3  # and no projection: all of AASIST-L's are small


@pytest.mark.parametrize("recipe", ["w4", "p6-pruned"])
def test_what_ios_18_brought_is_written_for_it_alone(
    recipe: str, source: Path, newer: Path, recordings: Path, clips: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--target iOS18"):
        coreml_int8.main([str(source), "--recipe", recipe, "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
    path = quantize(coreml_int8.main, newer, recipe, recordings, tmp_path)
    assert np.isfinite(load(path).score(clips)).all()
    assert describe_file(path).bytes < 0.75 * describe_file(newer).bytes


def test_a_palette_is_near_its_weights_and_keeps_zeros() -> None:
    weights = np.random.default_rng(0).normal(size=(96, 128))
    weights[::2, ::3] = 0
    errors = []
    for bits in (4, 6, 8):
        values, which = palette_of(weights, bits)
        assert values.shape == (2**bits,)
        found = values[which].reshape(weights.shape)
        assert not found[::2, ::3].any()
        errors.append(float(np.sqrt(((found - weights) ** 2).mean() / (weights**2).mean())))
    # Of a normal density, 4 bits leave 0.097 at best (Max, 1960); two more bits then leave about a quarter.
    assert errors[0] < 0.1
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3


def test_few_values_are_kept_exactly() -> None:
    weights = np.array([[0.5, -1.0], [2.0, 0.5]])
    values, which = palette_of(weights, 4)
    np.testing.assert_array_equal(values[which].reshape(2, 2), weights)


@pytest.mark.parametrize("recipe", ["w8d8", "f16", "w8a8-learned", "w8a16"])
def test_a_recipe_of_another_format_is_refused(recipe: str, source: Path) -> None:
    with pytest.raises(UserError, match="there are w8"):
        coreml_int8.main([str(source), "--recipe", recipe])


# Asked of the published AASIST-L. The evaluator takes a quarter of a second for a clip, so a third of them.
LEAST_PEARSON = {"w8": 0.9995, "w8a8": 0.995}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(LEAST_PEARSON))
def test_the_published_aasist_l_keeps_its_scores(recipe: str, shared: Path, tmp_path: Path) -> None:
    weights = shared / "weights" / "AASIST-L.pth"
    to_coreml.main(["--model", "aasist-l", "--checkpoint", str(weights), "--out", str(tmp_path)])
    source = tmp_path / "aasist-l.mlpackage"
    flags = ["--recipe", recipe, "--audio", str(shared / "audio"), "--out", str(tmp_path)]
    assert coreml_int8.main([str(source), *flags]) == 0
    protocol = shared / "audio" / "manifest.tsv"
    trials = find_clips(protocol, shared / "audio", format=None, splits=["dev"])
    path = tmp_path / f"aasist-l.{recipe}.mlpackage"
    one, two = (quantized.run_file(file, trials, tmp_path / "memory").scores for file in (source, path))
    assert agreement(one, two).pearson >= LEAST_PEARSON[recipe]
