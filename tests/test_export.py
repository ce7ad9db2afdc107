"""ONNX export of every registered model: right scores, a clean graph, and nothing left where it fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch

from antispoof import pretrained
from antispoof.audio import fit_length, load_audio
from antispoof.checkpoint import weights_hash
from antispoof.errors import CheckFailed, UserError
from antispoof.manifest import FACTS_KEY, manifest_path
from antispoof.manifest_reader import read_manifest
from antispoof.models import create_model, model_names, small_config
from antispoof.speechlike import speech_like_batch
from export import onnx_file, to_onnx
from runtimes import load
from runtimes.clips import PARITY_CLIPS, parity_clips
from runtimes.eager import EagerRuntime
from tests.exports import ONE_SECOND
from tests.recurrent_detector import RecurrentDetector

PARITY_TOLERANCE = 1e-4  # see antispoof.formats
BANNED = {"ScatterND", "Expand", "If", "Loop", "Where", "TopK", "GatherElements", "RandomNormal", "Dropout"}
# The public code's plain exports have 521 (dynamo) and 1,553 nodes (legacy) and 924 KiB.
AASIST_L_NODES = 330
AASIST_L_KIB = 420
TUNED_FOR_INTEGERS = [name for name in model_names() if pretrained.bundled_path(name, for_integers=True)]

# For tests of the command, whatever the network.
QUICK = ["--model", "fscnn", "--checkpoint", "random", "--set", "clip_samples=16000"]


def small_flags(name: str) -> list[str]:
    flags = ["--model", name, "--checkpoint", "random"]
    for key, value in small_config(name).items():
        flags += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return flags


@pytest.mark.parametrize("name", model_names())
def test_every_model_exports_and_scores_like_pytorch_in_any_batch(name: str, tmp_path: Path) -> None:
    assert to_onnx.main([*small_flags(name), "--dynamic-batch", "--out", str(tmp_path)]) == 0
    path = tmp_path / f"{name}.onnx"
    torch.manual_seed(0)  # as --checkpoint random
    reference = EagerRuntime(create_model(name, **small_config(name)), path)
    clips = speech_like_batch(8, reference.input.samples, seed=100)
    expected = reference.score(clips)
    runtime = load(path)
    for batch in (1, 3, 8):
        np.testing.assert_allclose(
            runtime.score(clips[:batch]), expected[:batch], atol=PARITY_TOLERANCE, rtol=0
        )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert not BANNED & set(onnx_file.operations(model))


@pytest.mark.parametrize("flags", [[], ["--dynamic-batch"]], ids=["one clip", "any batch"])
def test_recurrent_layers_read_their_weights_as_they_are(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = pretrained.Weights(RecurrentDetector().eval(), "random", "none")
    monkeypatch.setattr(to_onnx, "take_weights", lambda args: weights)
    assert to_onnx.main([*flags, "--out", str(tmp_path)]) == 0
    graph = onnx.load(tmp_path / "recurrent.onnx").graph
    stored = {row.name for row in graph.initializer}
    recurrent = [node for node in graph.node if node.op_type in ("GRU", "LSTM")]
    assert len(recurrent) == 2
    for node in recurrent:  # input, weights for input and state, bias; no state of zeros to begin with
        assert set(node.input[1:4]) <= stored
        assert not any(node.input[4:])
    assert not BANNED & {node.op_type for node in graph.node}
    assert stored == {name for node in graph.node for name in node.input} & stored


def test_aasist_l_is_small_and_clean(exported_model: Path) -> None:
    model = onnx.load(exported_model)
    assert sum(onnx_file.operations(model).values()) <= AASIST_L_NODES
    assert exported_model.stat().st_size <= AASIST_L_KIB * 1024


def test_two_exports_are_byte_identical(one_second_model: Path, tmp_path: Path) -> None:
    to_onnx.main([*ONE_SECOND, str(tmp_path)])
    assert (tmp_path / one_second_model.name).read_bytes() == one_second_model.read_bytes()


def test_no_path_of_the_machine_is_in_the_file(exported_model: Path) -> None:
    content = exported_model.read_bytes()
    assert str(Path.cwd()).encode() not in content
    assert b".py" not in content


def test_the_file_knows_what_its_manifest_knows(exported_model: Path) -> None:
    facts = {entry.key: entry.value for entry in onnx.load(exported_model).metadata_props}
    embedded = json.loads(facts[FACTS_KEY])
    beside = json.loads(manifest_path(exported_model).read_text())
    del beside["file"], beside["parity"], beside["model_version"], beside["golden_sha256"]
    assert embedded == beside
    assert beside["config"]["clip_samples"] == 64_600


@pytest.mark.parametrize("opset", [onnx_file.OPSETS.start, onnx_file.OPSETS.stop - 1])
def test_opset_is_what_was_asked_for(opset: int, tmp_path: Path) -> None:
    assert to_onnx.main([*QUICK, "--opset", str(opset), "--out", str(tmp_path)]) == 0
    assert [entry.version for entry in onnx.load(tmp_path / "fscnn.onnx").opset_import] == [opset]


def test_a_file_that_scores_otherwise_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = onnx_file.convert

    def convert_wrongly(*args: object, **kwargs: object) -> onnx.ModelProto:
        model = convert(*args, **kwargs)  # type: ignore[arg-type]
        bias = next(w for w in model.graph.initializer if w.name.endswith("classify.bias"))
        values = onnx.numpy_helper.to_array(bias) + np.float32([0.05, 0])
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return model

    monkeypatch.setattr(onnx_file, "convert", convert_wrongly)
    out = tmp_path / "new" / "folder"
    with pytest.raises(CheckFailed, match=r"fscnn\.onnx does not score as PyTorch does"):
        to_onnx.main([*QUICK, "--out", str(out)])
    assert not out.exists()
    assert capsys.readouterr().out == ""


def test_tiles_of_time_change_the_graph_and_not_the_scores(one_second_model: Path, tmp_path: Path) -> None:
    assert to_onnx.main(["--time-tiles", "4", *ONE_SECOND, str(tmp_path)]) == 0
    clips = speech_like_batch(2, 16_000)
    tiled, whole = load(tmp_path / "aasist-l.onnx"), load(one_second_model)
    np.testing.assert_allclose(tiled.score(clips), whole.score(clips), atol=PARITY_TOLERANCE, rtol=0)
    nodes = [sum(onnx_file.operations(onnx.load(r.path)).values()) for r in (tiled, whole)]
    assert nodes[0] > nodes[1]


def test_tiles_of_time_are_refused_where_nothing_is_cut(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--time-tiles: nothing in fscnn"):
        to_onnx.main([*QUICK, "--time-tiles", "2", "--bisect", "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    target = tmp_path / "fscnn.onnx"
    target.write_text("mine")
    flags = [*QUICK, "--out", str(tmp_path)]
    with pytest.raises(UserError, match="--force"):
        to_onnx.main(flags)
    assert target.read_text() == "mine"
    assert to_onnx.main([*flags, "--force"]) == 0
    assert load(target).input.samples == 16_000


def test_speech_of_the_users_own_verifies_the_file(
    tmp_path: Path, speech_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*QUICK, "--out", str(tmp_path)]
    assert to_onnx.main([*flags, "--verify-audio", str(speech_folder)]) == 0
    parity = read_manifest(tmp_path / "fscnn.onnx").parity
    assert parity is not None
    assert parity.clips == len(list(speech_folder.glob("*.wav")))
    assert "parity" in capsys.readouterr().out


def test_it_is_verified_on_whatever_can_be_scored(tmp_path: Path) -> None:
    (tmp_path / "._a.wav").write_bytes(b"what another system keeps beside a file")
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "folder.wav" / "a.ogg", speech_like_batch(1, 16_000)[0], 16_000)
    clips, name = parity_clips(tmp_path, 1_000)
    assert clips.shape == (1, 1_000)
    assert name == f"1 clips of {tmp_path.name}"


def test_the_plain_export_of_the_runtime_matches_outside_our_own_loader(exported_model: Path) -> None:
    session = onnxruntime.InferenceSession(exported_model, providers=["CPUExecutionProvider"])
    clip = speech_like_batch(1)
    (score,) = session.run(["score"], {"waveform": clip})
    np.testing.assert_array_equal(score, load(exported_model).score(clip))


def test_public_weights_score_real_speech_as_in_pytorch(published_model: Path) -> None:
    parity = read_manifest(published_model).parity
    assert parity is not None
    assert (parity.clips, parity.audio) == (PARITY_CLIPS, f"{PARITY_CLIPS} clips of dev")
    assert parity.max_difference <= PARITY_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("name", "checkpoint"), [("aasist", "AASIST.pth"), ("aasist-l", "AASIST-L.pth")])
def test_public_weights_equal_the_oracle_on_every_dev_clip(
    name: str, checkpoint: str, shared: Path, tmp_path: Path
) -> None:
    import csv

    to_onnx.main(["--checkpoint", str(shared / "weights" / checkpoint), "--out", str(tmp_path)])
    runtime = load(tmp_path / f"{name}.onnx", threads=2)
    with (shared / "oracles" / "aasist-scores.dev.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    expected = [float(row[f"{name.replace('-', '_')}_logit_bonafide"]) for row in rows]
    scores = [runtime.score(fit_length(load_audio(shared / "audio" / row["path"]))[None])[0] for row in rows]
    np.testing.assert_allclose(scores, expected, atol=PARITY_TOLERANCE, rtol=0)


def test_official_weights_without_a_network_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTISPOOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"could not download .*AASIST\.pth") as error:
        to_onnx.main(["--model", "aasist", "--checkpoint", "official", "--out", str(tmp_path)])
    assert "\n" not in str(error.value)


def test_official_weights_are_used_only_if_they_are_the_pinned_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    page = tmp_path / "AASIST.pth"
    page.write_bytes(b"something else")
    monkeypatch.setenv("ANTISPOOF_CACHE", str(tmp_path / "cache"))
    wanted = hashlib.sha256(b"the real one").hexdigest()
    with pytest.raises(UserError, match="sha256 differs"):
        pretrained.fetch(pretrained.Download(page.as_uri(), wanted, ""))
    page.write_bytes(b"the real one")
    cached = pretrained.fetch(pretrained.Download(page.as_uri(), wanted, ""))
    page.unlink()
    assert pretrained.fetch(pretrained.Download(page.as_uri(), wanted, "")) == cached


def test_the_bundled_model_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert to_onnx.main(["--out", str(tmp_path)]) == 0
    manifest = read_manifest(tmp_path / f"{pretrained.DEFAULT_MODEL}.onnx")
    assert manifest.weights.startswith("bundled")
    assert manifest.licence
    assert pretrained.DEFAULT_MODEL in capsys.readouterr().out


@pytest.mark.parametrize("model", TUNED_FOR_INTEGERS)
def test_bundled_weights_for_integers_are_others_that_decide_by_their_own_thresholds(
    model: str, tmp_path: Path
) -> None:
    assert to_onnx.main(["--model", model, "--checkpoint", "qat", "--out", str(tmp_path)]) == 0
    manifest = read_manifest(tmp_path / f"{model}.onnx")
    plain = pretrained.load_pretrained(None, model)
    assert manifest.weights == f"bundled {model}-qat.safetensors"
    assert manifest.weights_sha256 != weights_hash(plain.detector)
    assert manifest.licence == plain.licence
    assert manifest.thresholds


@pytest.mark.parametrize("flags", [[], ["--checkpoint", "qat"]], ids=["float", "qat"])
def test_a_model_without_weights_says_what_to_give(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--checkpoint FILE"):
        to_onnx.main(["--model", "aasist", *flags, "--out", str(tmp_path)])


def test_generated_clips_differ_in_level_and_content() -> None:
    clips, _ = parity_clips(None, 64_600)
    levels = 20 * np.log10(np.sqrt((clips**2).mean(axis=1)))
    assert np.ptp(levels) > 6
    assert len({clip.tobytes() for clip in clips}) == PARITY_CLIPS
