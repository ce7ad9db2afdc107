"""Recipes, calibration and the quantized ONNX files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from antispoof.audio import load_audio
from antispoof.errors import CheckFailed, UserError
from antispoof.manifest_reader import read_manifest
from antispoof.models.detector import Config, Detector, DetectorOutput
from antispoof.pretrained import Weights
from antispoof.speechlike import speech_like, speech_like_batch
from export import to_coreml, to_onnx, to_tflite
from quantize import calibration, coreml_int8, onnx_int8, pipeline, tflite_int8
from quantize.calibration import Histogram, observe
from quantize.float64 import to_float64
from quantize.pipeline import carry_over
from quantize.recipes import parse_recipe
from quantize.uncalibrated_int import dynamic
from runtimes import load
from tests import quantized_copies
from tests.quantized_copies import write_recordings
from tests.recurrent_detector import RecurrentDetector

RECIPES = (
    *("w8a8", "w8a8-s8", "w8a8-rr", "w8a8-mixed", "w8a8-learned", "w8a8-rr-learned-mixed", "w8a8-auto"),
    *("w8a16", "w8d8", "w8d8-mixed", "w8", "w4", "f16", "f16-mixed"),
    *("p8", "p6", "p4", "f32-pruned", "w8-pruned", "p6-pruned"),
)
SAMPLES = RecurrentDetector.clip_samples
LIST = Path(calibration.__file__).with_name("calibration_clips.txt")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_one_name(name: str) -> None:
    assert parse_recipe(name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "w7a8",
        "w8a8-",
        "w8a8-rr-s8",
        "a8w8",
        "w8a8-fast",
        "f16a8",
        "W8A8",
        "w8-learned",
        "w8a16-learned",
        "w8a8-mixed-auto",
        "f16-auto",
        "f32",
        "p5",
        "p6-rr",
        "f16-pruned",
        "w8a8-pruned",
    ],
)
def test_what_is_no_recipe_is_refused(name: str) -> None:
    with pytest.raises(UserError):
        parse_recipe(name)


def test_calibration_clips_are_of_the_train_split_alone(shared: Path) -> None:
    with (shared / "audio" / "manifest.tsv").open(encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file, delimiter="\t")}
    listed = calibration.read_list(LIST)
    assert len(listed) == len(set(listed)) >= 32
    assert {rows[path]["split"] for path in listed} == {"train"}
    reported = {
        row["dataset"] for row in rows.values() if row["split"] != "train" and row["label"] == "spoof"
    }
    assert not reported & {rows[path]["dataset"] for path in listed}


@pytest.mark.parametrize("observer", ["minmax", "percentile", "entropy", "mse"])
def test_ranges_do_not_depend_on_the_order_of_the_clips(observer: str) -> None:
    parts = [np.random.default_rng(seed).normal(0, 1 + seed, 5_000).astype(np.float32) for seed in range(4)]
    grids = []
    for order in (parts, parts[::-1]):
        histogram = Histogram()
        for part in order:
            histogram.add(part)
        grids.append(observe(histogram, observer))
    assert grids[0] == grids[1]


def quantize(source: Path, recipe: str, folder: Path) -> Path:
    """Returns the quantized copy of a file, by the command."""
    assert onnx_int8.main([str(source), "--recipe", recipe, "--out", str(folder)]) == 0
    return folder / f"aasist-l.{recipe}.onnx"


@pytest.fixture(scope="module")
def quantized(one_second_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Copies by recipe that several tests look at."""
    folder = tmp_path_factory.mktemp("quantized")
    return lru_cache(lambda recipe: quantize(one_second_model, recipe, folder))


# Scores of the bundled model spread over about 5. Eight bits in every encoder layer move them by a
# few tenths on generated signals; more would mean that a layer was put wrong.
LARGEST_MEDIAN = {"f16": 0.02, "w8a8": 0.6}


@pytest.mark.parametrize("recipe", sorted(LARGEST_MEDIAN))
def test_a_quantized_file_scores_nearly_like_its_source(
    recipe: str, one_second_model: Path, quantized: Callable[[str], Path], tmp_path: Path
) -> None:
    path = quantized(recipe)
    again = quantize(one_second_model, recipe, tmp_path)
    assert again.read_bytes() == path.read_bytes()  # the same clips give the same bytes
    clips = speech_like_batch(8, 16_000, seed=500)
    difference = np.abs(load(path).score(clips) - load(one_second_model).score(clips))
    assert np.median(difference) <= LARGEST_MEDIAN[recipe]
    manifest, source = read_manifest(path), read_manifest(one_second_model)
    assert manifest.recipe == recipe
    assert manifest.weights_sha256 == source.weights_sha256
    assert path.stat().st_size < 0.9 * one_second_model.stat().st_size


def test_the_waveform_stays_float(quantized: Callable[[str], Path]) -> None:
    graph = onnx.load(quantized("w8a8")).graph
    first = next(node for node in graph.node if node.op_type == "Conv")
    weights = {tensor.name: tensor for tensor in graph.initializer}
    assert weights[first.input[1]].data_type == onnx.TensorProto.FLOAT
    assert any(node.op_type == "QuantizeLinear" for node in graph.node)


def test_no_node_is_left_that_nothing_reads(quantized: Callable[[str], Path]) -> None:
    graph = onnx.load(quantized("w8a8")).graph
    read = {name for node in graph.node for name in node.input} | {graph.output[0].name}
    assert [node.name for node in graph.node if not read & set(node.output)] == []


def test_float16_leaves_the_front_end_in_float32(quantized: Callable[[str], Path]) -> None:
    graph = onnx.load(quantized("f16")).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert types[convolutions[0].input[1]] == onnx.TensorProto.FLOAT
    assert {types[node.input[1]] for node in convolutions[1:]} == {onnx.TensorProto.FLOAT16}


def test_nothing_is_overwritten_unless_forced(one_second_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "aasist-l.w8.onnx"
    target.write_text("mine")
    with pytest.raises(UserError, match="--force"):
        onnx_int8.main([str(one_second_model), "--recipe", "w8", "--out", str(tmp_path)])
    assert target.read_text() == "mine"


def test_a_copy_that_is_refused_leaves_nothing_behind(
    one_second_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "tolerance_of", lambda *_: 0.0)
    with pytest.raises(CheckFailed, match="w8 changes a score"):
        onnx_int8.main([str(one_second_model), "--recipe", "w8", "--out", str(tmp_path / "new")])
    assert not list(tmp_path.iterdir())


def test_a_protocol_that_cannot_be_read_is_refused_before_the_conversion(
    one_second_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_int8, "PRODUCT", replace(onnx_int8.PRODUCT, convert=lambda *_: 1 / 0))
    write_recordings(tmp_path, 4, 16_000)
    flags = ["--calibration", "all", "--audio", str(tmp_path), "--protocol", str(tmp_path / "none.tsv")]
    with pytest.raises(UserError, match=r"cannot read .*none.tsv"):
        onnx_int8.main([str(one_second_model), "--recipe", "w8", "--out", str(tmp_path), *flags])


def test_clips_of_a_folder_are_what_is_scored_there(tmp_path: Path) -> None:
    write_recordings(tmp_path, 3, 8_000)
    (tmp_path / "._0.wav").write_bytes(b"what another system keeps beside a file")
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(UserError, match="3 clips are too few: 4 at least"):
        calibration.calibration_clips("all", tmp_path, 1_000)
    soundfile.write(tmp_path / "folder.wav" / "inside.ogg", speech_like(3, 8_000), 16_000)
    clips, name = calibration.calibration_clips("all", tmp_path, 1_000)  # less than the shortest recording
    assert clips.shape == (4, 1_000)
    assert name == "4 clips of a folder"


@pytest.mark.parametrize("recipe", ["w8-mixed", "w8d8-mixed", "w8d8-s8", "w4d8", "f16-all", "p8"])
def test_a_recipe_of_which_a_word_would_say_nothing_is_refused(
    recipe: str, one_second_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"no onnx file can be {recipe}"):
        onnx_int8.main([str(one_second_model), "--recipe", recipe, "--out", str(tmp_path)])


def test_dynamic_integers_are_for_large_projections(one_second_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has none; w8-rr stores"):
        onnx_int8.main([str(one_second_model), "--recipe", "w8d8-rr", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
    rng = np.random.default_rng(0)
    shapes = {"small": (160, 100), "large": (100, 200), "last": (200, 1)}
    stored = [numpy_helper.from_array(rng.standard_normal(s, np.float32), name) for name, s in shapes.items()]
    nodes = [
        helper.make_node("MatMul", ["waveform", "small"], ["heard"], name="small"),
        helper.make_node("Relu", ["heard"], ["positive"]),
        helper.make_node("MatMul", ["positive", "large"], ["wide"], name="large"),
        helper.make_node("MatMul", ["wide", "last"], ["score"], name="last"),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, size])
        for name, size in (("waveform", 160), ("score", 1))
    ]
    graph = helper.make_graph(nodes, "projections", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    types = {one.name: one.data_type for one in dynamic(model, parse_recipe("w8d8-rr")).graph.initializer}
    floats = {name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT}
    assert {"small", "last"} <= floats
    assert "large" not in floats


class FramesDetector(Detector):
    """A front end and a small projection: nothing that integers are for."""

    config = Config(SAMPLES)
    clip_samples = SAMPLES
    name = "frames"

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Conv1d(1, 8, 160, 160)
        self.classify = nn.Linear(8, 2)

    def forward(self, waveform: Tensor) -> DetectorOutput:
        embedding = self.frames(waveform.unsqueeze(1)).square().mean(dim=2)
        return DetectorOutput(self.classify(embedding), embedding)


def exported(command: Any, detector: Detector, folder: Path) -> Path:
    """Returns what an exporter makes of a network."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(command, "take_weights", lambda args: Weights(detector.eval(), "random", "none"))
        assert command.main(["--out", str(folder)]) == 0
    (path,) = (path for path in folder.iterdir() if path.suffix in (".onnx", ".tflite", ".mlpackage"))
    return path


@pytest.fixture(scope="module")
def recurrent_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return exported(to_onnx, RecurrentDetector(), tmp_path_factory.mktemp("recurrent"))


@pytest.mark.parametrize(
    ("recipe", "largest_share", "tolerance"),
    [("w8", 0.35, 2e-3), ("w4", 0.25, 2e-2), ("f16-mixed", 0.6, 2e-4)],
)
def test_the_weights_of_recurrent_layers_become_small(
    recipe: str, largest_share: float, tolerance: float, recurrent_model: Path, tmp_path: Path
) -> None:
    recordings = write_recordings(tmp_path, 6, SAMPLES)
    small = quantized_copies.quantize(onnx_int8.main, recurrent_model, recipe, recordings, tmp_path / "out")
    assert small.stat().st_size < largest_share * recurrent_model.stat().st_size
    clips = speech_like_batch(4, SAMPLES, seed=50)
    np.testing.assert_allclose(
        load(small).score(clips), load(recurrent_model).score(clips), atol=tolerance, rtol=0
    )


def test_no_recurrent_layer_works_in_float64(recurrent_model: Path) -> None:
    with pytest.raises(UserError, match="-f64 has no kernel for GRU"):
        to_float64(onnx.load(recurrent_model))


NOT_WORTH = "finds no weights in frames"
NO_LAYERS = "is for convolutions and large projections .* has none"


@pytest.mark.parametrize(
    ("export", "command", "recipes"),
    [
        (
            to_onnx,
            onnx_int8,
            {"w8": NOT_WORTH, "f16": NOT_WORTH, "w8a8-rr": NO_LAYERS, "w8a8-rr-f64": NO_LAYERS},
        ),
        (to_tflite, tflite_int8, {"w8d8": NO_LAYERS, "w8a8": NO_LAYERS}),
        (to_coreml, coreml_int8, {"w8": NOT_WORTH, "p6": NOT_WORTH, "w8a8": NO_LAYERS}),
    ],
    ids=["onnx", "tflite", "coreml"],
)
def test_a_recipe_that_would_change_nothing_is_refused(
    export: Any, command: Any, recipes: dict[str, str], tmp_path: Path
) -> None:
    source, out = exported(export, FramesDetector(), tmp_path / "float"), tmp_path / "out"
    flags = ["--calibration", "all", "--audio", str(write_recordings(tmp_path, 6, SAMPLES))]
    for recipe, says in recipes.items():
        with pytest.raises(UserError, match=f"^{recipe} {says}"):
            command.main([str(source), "--recipe", recipe, *flags, "--out", str(out)])
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--calibration", "list.txt"], "--calibration needs --audio"),
        (["--split", "dev"], "--split belongs to a protocol"),
        (["--protocol-audio", "."], "--protocol-audio belongs to a protocol"),
        (["--updates", "50"], "w8 is none of them"),
        (["--recipe", "w8a8-learned", "--updates", "1"], "--updates takes at least"),
        (["--out", "list.txt"], "cannot write to list.txt: File exists"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(
    one_second_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("")
    with pytest.raises(UserError, match=says):
        onnx_int8.main([str(one_second_model), "--recipe", "w8", *flags])
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


# ---- thresholds


def test_thresholds_stay_where_scores_do(one_second_model: Path, quantized: Callable[[str], Path]) -> None:
    source, copy = (read_manifest(path) for path in (one_second_model, quantized("f16")))
    assert source.thresholds
    assert source.calibration
    assert copy.calibration
    kept = [(point.name, point.score) for point in copy.thresholds]
    assert kept == [(point.name, point.score) for point in source.thresholds]
    assert (copy.calibration.scale, copy.calibration.offset) == (
        source.calibration.scale,
        source.calibration.offset,
    )
    for fitted in (copy.calibration, *copy.thresholds):
        assert source.thresholds[0].data in fitted.data
        assert "carried over from the float file" in fitted.data


@pytest.mark.parametrize(("moved", "carried"), [(0.09, True), (0.11, False)])
def test_thresholds_go_where_scores_moved_too_far(
    one_second_model: Path, capsys: pytest.CaptureFixture[str], moved: float, carried: bool
) -> None:
    source = read_manifest(one_second_model)
    scores = np.tile([-1.0, 1.0], 20)  # a standard deviation of one
    bare = replace(source, calibration=None, thresholds=())
    found = carry_over(bare, source, scores, scores + moved, "clips")
    assert bool(found.thresholds) == bool(found.calibration) == carried
    assert ("fit_thresholds" in capsys.readouterr().err) != carried
    assert carry_over(bare, bare, scores, scores + moved, "clips") == bare
    assert capsys.readouterr().err == ""


def test_thresholds_are_fitted_to_trials_in_mishaps_too(
    one_second_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_recordings(clips, 8, 16_000)
    score = load(one_second_model).score
    names = sorted(
        (path.name for path in clips.iterdir()), key=lambda name: score(load_audio(clips / name)[None])[0]
    )
    lines = [f"{name}\t{'spoof' if place < 4 else 'bonafide'}\tdev" for place, name in enumerate(names)]
    protocol = tmp_path / "labels.tsv"
    protocol.write_text("\n".join(["path\tlabel\tsplit", *lines]) + "\n")
    words = ["--recipe", "f16", "--audio", str(clips), "--calibration", "all", "--out", str(tmp_path)]
    words.append("--force")
    fit = ["--protocol", str(protocol)]
    data, thresholds = [], []
    for more in ([], ["--as-recorded"]):
        assert onnx_int8.main([str(one_second_model), *words, *fit, *more]) == 0
        manifest = read_manifest(tmp_path / "aasist-l.f16.onnx")
        thresholds.append([point.score for point in manifest.thresholds])
        data.append(manifest.thresholds[0].data)
    trials = "4 bona fide and 4 spoofed trials of labels.tsv, split dev, as recorded"
    assert data == [f"{trials}, corrupted in six ways, without the silence around the speech", trials]
    assert thresholds[0] != thresholds[1]
    assert "4 spoofs cannot show it" in capsys.readouterr().err  # the eight ways make no more of them
    with pytest.raises(UserError, match="--as-recorded belongs to a protocol"):
        onnx_int8.main([str(one_second_model), *words, "--as-recorded"])
