"""What lint finds besides operations: free shapes, randomness, half precision, lying metadata."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from onnx import helper

from antispoof.errors import UserError
from antispoof.manifest import describe_file, manifest_path
from export.lint import lint
from tests.lint.small_files import found, save, value, weights


def test_a_free_batch_size_is_a_problem_where_shapes_must_be_fixed(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Relu", ["x"], ["y"])],
        [value("x", ["batch", 8])],
        [value("y", ["batch", 8])],
    )
    (finding,) = found(lint(path, "qnn"), "shape").values()
    assert (finding.level, finding.what) == ("problem", "shape decided at run time: x [batch, 8]")
    (finding,) = found(lint(path, "webgpu"), "shape").values()
    assert finding.level == "note"


def test_randomness_left_in_the_graph_is_a_problem(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["noise"], shape=[1, 8]),
        helper.make_node("Dropout", ["x"], ["kept"]),
        helper.make_node("Add", ["kept", "noise"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 8])], [value("y", [1, 8])])
    (finding,) = found(lint(path), "random").values()
    assert (finding.level, finding.count, finding.what) == (
        "problem",
        2,
        "Dropout, RandomNormal left in the graph",
    )


def test_constants_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "epsilon"], ["a"]),
        helper.make_node("Mul", ["a", "mask"], ["b"]),
        helper.make_node("Add", ["b", "fine"], ["y"]),
    ]
    constants = {
        "epsilon": np.array(1e-12, np.float32),
        "mask": np.array([-1e9, 0], np.float32),
        "fine": np.array([1e-5, -np.inf], np.float32),
    }
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 2])], [value("y", [1, 2])], **constants)
    named = {finding.names: finding.level for finding in found(lint(path, "ane"), "half").values()}
    assert named == {("epsilon",): "problem", ("mask",): "problem"}
    assert {f.level for f in found(lint(path, "qnn"), "half").values()} == {"note"}
    assert not found(lint(path, "onnxruntime-cpu"), "half")


def test_values_on_real_clips_are_held_against_half_precision(tmp_path: Path, speech_folder: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "huge"], ["loud"]),
        helper.make_node("Mul", ["loud", "tiny"], ["quiet"]),
        helper.make_node("ReduceSum", ["quiet"], ["y"], keepdims=0),
    ]
    constants = {"huge": np.full(1, 6e5, np.float32), "tiny": np.full(1, 1e-12, np.float32)}
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 16000])], [value("y", [])], **constants)
    report = lint(path, "ane", speech_folder)
    over = next(f for what, f in found(report, "half").items() if what.startswith("values beyond 65504"))
    small = next(f for what, f in found(report, "half").items() if what.startswith("values mostly below"))
    peak = max(np.abs(soundfile.read(clip)[0][:16000]).max() for clip in sorted(speech_folder.glob("*.wav")))
    assert (over.level, over.names, over.what.rpartition(" ")[2]) == (
        "problem",
        ("loud",),
        f"{6e5 * peak:.3g}",
    )
    assert (small.level, small.names[0]) == ("note", "quiet")


def test_metadata_that_is_missing_or_lies(exported_model: Path, aasist_like: Path, tmp_path: Path) -> None:
    def problems(path: Path) -> list[str]:
        return [f.what for f in found(lint(path), "metadata").values() if f.level == "problem"]

    assert problems(exported_model) == []
    assert problems(aasist_like) == ["no manifest beside it (public.onnx.manifest.json)"]
    copy = tmp_path / exported_model.name
    shutil.copy(manifest_path(exported_model), manifest_path(copy))
    model = onnx.load(exported_model)
    del model.metadata_props[:]
    copy.write_bytes(model.SerializeToString())
    assert "bytes long where its manifest says" in problems(copy)[0]
    facts = json.loads(manifest_path(copy).read_text())
    facts["file"] = vars(describe_file(copy))
    manifest_path(copy).write_text(json.dumps(facts))
    assert problems(copy) == ["the file itself does not say what it is"]
    shutil.copy(exported_model, copy)
    facts["file"] = vars(describe_file(copy))
    facts["licence"] = "none"
    manifest_path(copy).write_text(json.dumps(facts))
    assert problems(copy) == ["the file itself says otherwise of licence"]


def test_weights_beside_the_file_are_a_problem(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", [1, 64])],
        [value("y", [1, 64])],
        w=weights(64, 64),
    )
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert "weights outside of the file: m.data" in found(lint(path), "metadata")
    (tmp_path / "m.data").unlink()
    with pytest.raises(UserError, match=r"m\.data"):
        lint(path)
