"""The table of what quantization costs, from files to a rendered row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antispoof import manifest
from antispoof.audio import SAMPLE_RATE, fit_length, load_audio
from antispoof.errors import UserError
from antispoof.manifest_reader import read_manifest
from antispoof.speechlike import speech_like
from benchmarks import quantized
from benchmarks.pages.result_tables import RENDERERS
from benchmarks.timing import harness
from benchmarks.trial_scores import find_clips
from quantize import onnx_int8
from runtimes import load
from tests.manifests import copy_model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, one_second_model: Path) -> Path:
    """A model, its 8-bit copy, one that claims other weights, and six clips that the first sorts right."""
    folder = tmp_path_factory.mktemp("quantized")
    for index in range(6):
        soundfile.write(folder / f"{index}.wav", speech_like(index, SAMPLE_RATE), SAMPLE_RATE)
    copy_model(one_second_model, folder / "one.onnx")
    copy_model(one_second_model, folder / "two.onnx", weights_sha256="0" * 64)
    onnx_int8.main([str(folder / "one.onnx"), "--recipe", "w8"])
    runtime = load(folder / "one.onnx")
    clips = [fit_length(load_audio(folder / f"{index}.wav"), 16_000)[None] for index in range(6)]
    higher = np.argsort([runtime.score(clip)[0] for clip in clips])[3:]
    rows = [f"{index}.wav\t{'bonafide' if index in higher else 'spoof'}" for index in range(6)]
    (folder / "labels.tsv").write_text("path\tlabel\n" + "\n".join(rows) + "\n")
    return folder


def test_a_row_has_everything_and_is_made_again_from_memory(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "FEWEST_ROUNDS", 2)
    monkeypatch.setattr(harness, "WARM_UP_MOST", 2)
    flags = ["--audio", str(place), "--protocol", str(place / "labels.tsv"), "--rounds", "2"]
    flags += ["--cache", str(place / "cache"), "--json", str(place / "out.json")]
    assert quantized.main([str(place / "one.onnx"), str(place / "one.w8.onnx"), *flags]) == 0
    document = json.loads((place / "out.json").read_text())
    (row,) = document["rows"]
    assert row["label"] == "w8"
    assert 0 < row["agreement"]["max_difference"] < 1
    assert row["reference_eer"] == 0  # the labels are the float file's own
    assert row["parity"] == "UNDERPOWERED"
    assert row["pooled_nodes"]["clips"] == 6
    assert "`w8`" in RENDERERS[document["kind"]](document)
    assert "w8" in capsys.readouterr().out
    # What an interruption cut off is done again, and nothing else.
    memory = sorted((place / "cache").glob("*.jsonl"))
    whole = [file.read_text() for file in memory]
    memory[0].write_text(whole[0][: len(whole[0]) // 2])
    assert quantized.main([str(place / "one.onnx"), str(place / "one.w8.onnx"), *flags, "--force"]) == 0
    assert [file.read_text() for file in memory] == whole


@pytest.mark.parametrize("damage", [b"junk\n", b"[1]\n", b'["a", "x", []]\n', b"\xff\n"])
def test_a_damaged_memory_is_refused(place: Path, tmp_path: Path, damage: bytes) -> None:
    clips = find_clips(place / "labels.tsv", place, format=None, splits=[])
    quantized.run_file(place / "one.onnx", clips, tmp_path)
    [file] = tmp_path.iterdir()
    file.write_bytes(damage)
    with pytest.raises(UserError, match="is damaged: delete it"):
        quantized.run_file(place / "one.onnx", clips, tmp_path)
    assert file.read_bytes() == damage


def test_random_weights_have_no_eer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = find_clips(place / "labels.tsv", place, format=None, splits=[])
    outcome = quantized.run_file(place / "one.onnx", clips, place / "cache")
    monkeypatch.setattr(manifest, "UNTRAINED", read_manifest(place / "one.onnx").weights)
    row = quantized.score_row(outcome, place / "one.w8.onnx", clips, place / "cache")
    assert "eer_difference" not in row
    assert row["agreement"]["pearson"] > 0.99


def test_a_file_of_other_weights_is_refused(place: Path) -> None:
    flags = ["--audio", str(place), "--protocol", str(place / "labels.tsv")]
    with pytest.raises(UserError, match="other weights"):
        quantized.main([str(place / "one.onnx"), str(place / "two.onnx"), *flags])
