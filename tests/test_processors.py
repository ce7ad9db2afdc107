"""Scores of quantized files on processors that this machine does not have; `make test-arm` emulates them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from antispoof.errors import CheckFailed
from antispoof.formats import format_of
from antispoof.manifest import Input, Manifest, describe_file, manifest_path
from antispoof.manifest_reader import read_manifest
from benchmarks import processors
from benchmarks.devices.emulator import PROCESSORS, Emulator, NoEmulator, set_up
from benchmarks.processors import Comparison, compare, scores, table
from benchmarks.results_file import read_results
from export import to_onnx, to_tflite
from quantize import onnx_int8, tflite_int8
from quantize.recipes import parse_recipe
from runtimes import load
from runtimes.golden import INTEGER_TOLERANCE, golden_clips

SAMPLES = 16_000  # of the small network
ONNX = ("w8a8", "w8a8-s8", "w8a8-rr", "w8a8-f64", "w8a8-rr-f64", "w8a8-s8-rr-f64", "w8a16", "w8")
TFLITE = ("w8d8", "w8a8", "w8a16", "w8", "w4")
FILES = [*(f"fscnn.{name}.onnx" for name in ONNX), *(f"fscnn.{name}.tflite" for name in TFLITE)]


def test_the_bare_scorer_scores_as_the_runtime_does(loudness_model: Path, tmp_path: Path) -> None:
    clips = golden_clips(load(loudness_model).input.samples)
    np.save(tmp_path / "clips.npy", clips)
    (found,) = scores([sys.executable], [str(loudness_model), str(tmp_path / "clips.npy")])
    assert np.array_equal(found, load(loudness_model).score(clips))


def test_without_packages_one_line_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoEmulator, match=r"^[^\n]+$"):
        set_up(tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]  # no half-filled folder


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    try:
        return set_up()
    except NoEmulator as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def fscnn(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all `FILES`, of the bundled weights."""
    folder = tmp_path_factory.mktemp("fscnn")
    for exporter, quantizer, suffix, recipes in (
        (to_onnx, onnx_int8, "onnx", ONNX),
        (to_tflite, tflite_int8, "tflite", TFLITE),
    ):
        exporter.main(["--model", "fscnn", "--out", str(folder)])
        for recipe in recipes:
            quantizer.main([str(folder / f"fscnn.{suffix}"), "--recipe", recipe])
    return folder


@pytest.fixture(scope="module")
def compared(
    emulator: Emulator, fscnn: Path, request: pytest.FixtureRequest
) -> Iterator[dict[tuple[str, str], Comparison]]:
    """All `FILES` on all processors, by the names of both; printed after the last test."""
    rows = compare([fscnn / name for name in FILES], emulator)
    yield {(row.file, row.processor): row for row in rows}
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n\n{table(rows)}")


def saturates(row: Comparison) -> bool:
    """Whether sums of two 8-bit products may leave 16 bits. LiteRT's kernels widen their integers before."""
    recipe = parse_recipe(row.recipe)
    return row.file.endswith(".onnx") and recipe.activation_bits == 8 and not recipe.reduced_range


@pytest.mark.emulated
@pytest.mark.parametrize("processor", [row.name for row in PROCESSORS])
@pytest.mark.parametrize("file", FILES)
def test_a_score_is_the_same_on_every_processor(
    file: str, processor: str, compared: dict[tuple[str, str], Comparison]
) -> None:
    row = compared[file, processor]
    if row.allowed == 0:
        assert row.differing == 0
    elif not saturates(row):
        # Float32 sums in another order, and where there are integers behind them, some that become the next.
        integers = parse_recipe(row.recipe).activations != "float"
        assert row.largest_difference <= (INTEGER_TOLERANCE if integers else format_of(Path(file)).tolerance)


@pytest.mark.emulated
def test_the_promise_is_that_of_the_recipe(compared: dict[tuple[str, str], Comparison]) -> None:
    promised = {row.recipe for row in compared.values() if row.allowed == 0}
    assert promised == {"w8a8-rr-f64", "w8a8-s8-rr-f64"}


@pytest.mark.emulated
def test_only_reduced_range_keeps_the_bundled_detector_from_saturating(
    compared: dict[tuple[str, str], Comparison],
) -> None:
    full, reduced = (
        [compared[f"fscnn.{recipe}.onnx", row.name].largest_difference for row in PROCESSORS]
        for recipe in ("w8a8-f64", "w8a8-rr-f64")
    )
    assert min(full) == 0  # this machine saturates as the Haswell does, or not at all, as ARM
    assert max(full) > INTEGER_TOLERANCE
    assert max(reduced) == 0


@pytest.fixture(scope="module")
def saturating(fscnn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random convolution network whose float arithmetic adds nothing up, so that it is exact."""
    random = np.random.default_rng(0)
    constants = {
        "shape": np.array([1, 1, 125, SAMPLES // 125]),
        "signs": random.choice([-1, 1], (16, 1, 1, 1)),
        "first": random.uniform(-0.5, 1, (16, 16, 3, 3)),
        "second": random.uniform(-0.5, 1, (16, 16, 3, 3)),
        "axes": np.array([1, 2, 3]),
    }
    nodes = [
        helper.make_node("Reshape", ["waveform", "shape"], ["map"]),
        helper.make_node("Conv", ["map", "signs"], ["signed"]),
        helper.make_node("Relu", ["signed"], ["positive"]),
        helper.make_node("Conv", ["positive", "first"], ["middle"], strides=[2, 2]),
        helper.make_node("Relu", ["middle"], ["rectified"]),
        helper.make_node("Conv", ["rectified", "second"], ["last"], strides=[2, 2]),
        helper.make_node("ReduceMax", ["last", "axes"], ["score"], keepdims=0),
    ]
    weights = [
        numpy_helper.from_array(value if name in ("shape", "axes") else value.astype(np.float32), name)
        for name, value in constants.items()
    ]
    waveform = helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, SAMPLES])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "saturating", [waveform], [score], weights)
    path = tmp_path_factory.mktemp("saturating") / "saturating.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    manifest = replace(read_manifest(fscnn / "fscnn.onnx"), model="saturating")
    write_manifest(path, replace(manifest, input=Input("waveform", 1, SAMPLES), file=describe_file(path)))
    for recipe in ("w8a8", "w8a8-rr"):
        onnx_int8.main([str(path), "--recipe", recipe])
    return path


def write_manifest(path: Path, manifest: Manifest) -> None:
    manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")


@pytest.mark.emulated
def test_integers_of_a_reduced_range_are_the_same_everywhere(saturating: Path, emulator: Emulator) -> None:
    full, reduced = (saturating.with_suffix(f".{recipe}.onnx") for recipe in ("w8a8", "w8a8-rr"))
    rows = compare([full, reduced], emulator)
    assert {row.differing > 0 for row in rows if row.file == full.name} == {True, False}
    assert not any(row.differing for row in rows if row.file == reduced.name)


@pytest.mark.emulated
def test_a_file_that_breaks_its_promise_is_named(
    saturating: Path, emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saturating.with_suffix(".w8a8.onnx")
    write_manifest(path, replace(read_manifest(path), recipe="w8a8-rr-f64"))
    with pytest.raises(CheckFailed, match=path.name):
        processors.main([str(path), "--json", str(tmp_path / "result.json")])
    document = read_results(tmp_path / "result.json", processors.KIND)
    assert [row["processor"] for row in document["rows"]] == [row.name for row in PROCESSORS]
    assert all(row["emulated"] for row in document["conditions"]["processors"])
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(PROCESSORS)
