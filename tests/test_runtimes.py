"""Every runtime refuses in words what it cannot score, and what its manifest does not vouch for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from antispoof.errors import UserError
from antispoof.manifest import SCHEMA, Input, describe_file, manifest_path
from antispoof.manifest_reader import parse_manifest, read_manifest
from antispoof.models import create_model
from antispoof.speechlike import speech_like_batch
from runtimes import litert, load
from runtimes.base import Runtime
from runtimes.compare import compare
from runtimes.eager import EagerRuntime
from tests.manifests import write_manifest


@pytest.fixture(scope="module", params=["torch", "onnx"])
def runtime(request: pytest.FixtureRequest, exported_model: Path) -> Runtime:
    if request.param == "onnx":
        return load(exported_model)
    torch.manual_seed(0)  # as --checkpoint random
    return EagerRuntime(create_model("aasist-l"), Path("aasist-l.pth"))


def bad_waveforms() -> dict[str, tuple[Any, str]]:
    good = speech_like_batch(1)
    holed = good.copy()
    holed[0, 5] = np.nan
    return {
        "longer": (np.zeros((1, 64_601), np.float32), "64600"),
        "shorter": (np.zeros((1, 16_000), np.float32), "64600"),
        "one-dimensional": (good[0], "float32 array"),
        "double": (good.astype(np.float64), "float64"),
        "integer": ((good * 32768).astype(np.int16), "int16"),
        "a list": (good.tolist(), "list"),
        "no clips": (good[:0], "64600"),
        "NaN": (holed, "NaN"),
    }


@pytest.mark.parametrize("case", sorted(bad_waveforms()))
def test_a_bad_waveform_gets_a_sentence_and_no_score(case: str, runtime: Runtime) -> None:
    waveforms, message = bad_waveforms()[case]
    with pytest.raises(UserError, match=message):
        runtime.score(waveforms)


def test_a_fixed_batch_scores_any_number_of_clips(exported_model: Path, runtime: Runtime) -> None:
    clips = speech_like_batch(3)
    fixed = load(exported_model)
    assert fixed.input.batch == 1
    np.testing.assert_allclose(fixed.score(clips), runtime.score(clips), atol=1e-4, rtol=0)


class Several(Runtime):
    """Gives so many scores, whatever it takes."""

    def __init__(self, count: int, like: Runtime) -> None:
        self.count, self.path, self.manifest, self.input = count, like.path, like.manifest, like.input

    def _run(self, waveforms: np.ndarray) -> np.ndarray:
        return np.zeros(self.count, np.float32)


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_scores_than_of_clips_is_no_result(count: int, runtime: Runtime) -> None:
    with pytest.raises(UserError, match=r"took 1 clips"):
        Several(count, runtime).score(speech_like_batch(1))


def test_comparison_names_the_worst_clip(exported_model: Path) -> None:
    class Shifted(EagerRuntime):
        def _run(self, waveforms: np.ndarray) -> np.ndarray:
            return super()._run(waveforms) + np.array([0, 0.5], np.float32)

    torch.manual_seed(0)
    model = create_model("aasist-l")
    result = compare(EagerRuntime(model, Path("a")), Shifted(model, Path("b")), speech_like_batch(2))
    assert result.worst == 1
    assert result.max_difference == pytest.approx(0.5, abs=1e-5)
    assert not result.within(1e-4)


def copy_of(exported: Path, folder: Path) -> Path:
    for path in (exported, manifest_path(exported)):
        shutil.copy(path, folder / path.name)
    return folder / exported.name


Edit = Callable[[dict[str, Any]], object]
LIES: dict[str, tuple[Edit, str]] = {
    "sha256": (lambda m: m["file"].update(sha256="0" * 64), "sha256 differs"),
    "bytes": (lambda m: m["file"].update(bytes=3), "3"),
    "no file": (lambda m: m.update(file=None), "names no file"),
    "rate": (lambda m: m["input"].update(sample_rate=8_000), "sample_rate is 8000"),
    "length": (lambda m: m["input"].update(samples=32_000), "32000"),
    "batch": (lambda m: m["input"].update(batch=4), "its manifest says"),
    "zero batch": (lambda m: m["input"].update(batch=0), "input.batch"),
    "input name": (lambda m: m["input"].update(name="audio"), "'audio'"),
    "output name": (lambda m: m["output"].update(name="logits"), "'logits'"),
    "polarity": (lambda m: m["output"].update(polarity="higher is spoof"), "polarity"),
    "labels": (lambda m: m["output"].update(labels=["bonafide", "spoof"]), "labels"),
    "type": (lambda m: m["input"].update(dtype="int8"), "dtype"),
    "length rule": (lambda m: m["input"].update(length_rule="zero pad"), "length_rule"),
    "format": (lambda m: m.update(format="tflite"), "tflite"),
    "schema": (lambda m: m.update(schema=SCHEMA + 1), "schema"),
    "calibration": (lambda m: m.update(calibration={"scale": -1, "offset": 0, "data": ""}), "polarity"),
    "infinite": (lambda m: m.update(calibration={"scale": float("inf"), "offset": 0, "data": ""}), "finite"),
    "kind": (lambda m: m["input"].update(samples="64600"), "a"),
    "truth for a number": (lambda m: m["input"].update(samples=True), "bool"),
    "missing": (lambda m: m.pop("output"), "'output'"),
    "thresholds": (lambda m: m.update(thresholds=[3]), "thresholds"),
    "endless digits": (lambda m: m["parity"].update(tolerance=10**400), "401 digits"),
}


@pytest.mark.parametrize("lie", sorted(LIES))
def test_a_manifest_that_lies_is_caught(lie: str, exported_model: Path, tmp_path: Path) -> None:
    edit, message = LIES[lie]
    path = copy_of(exported_model, tmp_path)
    facts = json.loads(manifest_path(path).read_text())
    edit(facts)
    manifest_path(path).write_text(json.dumps(facts))
    with pytest.raises(UserError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "list"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b" " * 2_000_000, "larger"),
    ],
)
def test_what_is_no_manifest_is_refused(
    content: bytes, message: str, exported_model: Path, tmp_path: Path
) -> None:
    path = copy_of(exported_model, tmp_path)
    manifest_path(path).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(path)


def test_a_folder_in_the_place_of_a_model_is_refused(exported_model: Path, tmp_path: Path) -> None:
    path = copy_of(exported_model, tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        load(path)


def test_a_model_without_its_manifest_is_refused(exported_model: Path, tmp_path: Path) -> None:
    path = copy_of(exported_model, tmp_path)
    manifest_path(path).unlink()
    with pytest.raises(UserError, match="no manifest"):
        load(path)


def test_one_changed_byte_is_caught(exported_model: Path, tmp_path: Path) -> None:
    path = copy_of(exported_model, tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="sha256 differs"):
        load(path)


def test_a_damaged_model_with_an_honest_manifest_gets_one_line(exported_model: Path, tmp_path: Path) -> None:
    path = copy_of(exported_model, tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    facts = json.loads(manifest_path(path).read_text())
    entry = describe_file(path)
    facts["file"] = {"name": entry.name, "bytes": entry.bytes, "sha256": entry.sha256}
    manifest_path(path).write_text(json.dumps(facts))
    with pytest.raises(UserError, match="not an ONNX model") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_model_cannot_pull_in_another_file(exported_model: Path, tmp_path: Path) -> None:
    path = copy_of(exported_model, tmp_path)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    facts = json.loads(manifest_path(path).read_text())
    entry = describe_file(path)
    facts["file"] = {"name": entry.name, "bytes": entry.bytes, "sha256": entry.sha256}
    manifest_path(path).write_text(json.dumps(facts))
    with pytest.raises(UserError, match="not an ONNX model"):
        load(path)


def test_an_error_inside_onnxruntime_gets_one_line(tmp_path: Path) -> None:
    waveform = helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, 16_000])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])
    nodes = [
        helper.make_node("ReduceMax", ["waveform"], ["highest"], axes=[1], keepdims=0),
        helper.make_node("Cast", ["highest"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["score"]),
    ]
    table = helper.make_tensor("table", TensorProto.FLOAT, [1], [0.5])
    graph = helper.make_graph(nodes, "picky", [waveform], [score], [table])
    path = tmp_path / "picky.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    picky = load(write_manifest(path, 16_000))
    assert picky.score(np.zeros((1, 16_000), np.float32)) == [0.5]
    with pytest.raises(
        UserError, match=r"picky\.onnx: onnxruntime could not run it .*out of data bounds"
    ) as error:
        picky.score(np.full((1, 16_000), 5, np.float32))
    assert "\n" not in str(error.value)


def test_an_error_inside_litert_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def get_input_details(self) -> list[dict[str, int]]:
            return [{"index": 0}]

        get_output_details = get_input_details

        def set_tensor(self, index: int, value: np.ndarray) -> None:
            pass

        def invoke(self) -> None:
            raise RuntimeError("gather index out of bounds\nNode number 3 (GATHER) failed to invoke.")

    monkeypatch.setattr(litert, "open_interpreter", lambda content, threads: Failing())
    manifest = SimpleNamespace(input=Input("waveform", 1, 16_000))
    runtime = litert.LitertRuntime(b"", 1, Path("picky.tflite"), manifest)
    with pytest.raises(UserError, match=r"picky\.tflite: LiteRT could not run it .*bounds Node number 3"):
        runtime.score(np.zeros((1, 16_000), np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": 0}, "threads"),
        ({"model": "aasist-l"}, "--model is for checkpoints"),
        ({"providers": ["TpuExecutionProvider"]}, "no TpuExecutionProvider"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: dict[str, Any], message: str, exported_model: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load(exported_model, **arguments)


@pytest.mark.parametrize("name", ["missing.onnx", "notes.txt"])
def test_what_is_no_model_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=name):
        load(tmp_path / name)


def test_a_manifest_round_trips(exported_model: Path) -> None:
    manifest = read_manifest(exported_model)
    assert parse_manifest(manifest.to_json().encode(), "again") == manifest


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_edit_of_a_manifest_parses_or_gets_one_line(data: st.DataObject, exported_model: Path) -> None:
    facts = json.loads(manifest_path(exported_model).read_text())
    where = facts
    while True:
        key = data.draw(st.sampled_from(sorted(where)))
        if not isinstance(where[key], dict) or not where[key] or data.draw(st.booleans()):
            break
        where = where[key]
    where[key] = data.draw(json_values)
    try:
        parse_manifest(json.dumps(facts).encode(), "edited")
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - parsing is as good an outcome
