"""Peers side by side: what each is made of, what is a row that says why, and a whole small run."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antispoof.audio import CLIP_SAMPLES
from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from benchmarks import peer_builds, peers
from benchmarks.pages import result_tables
from benchmarks.peer_networks import open_network, save_network
from benchmarks.peer_runtimes import REPORTING, SHAPE, open_run
from benchmarks.results_file import read_results
from benchmarks.timing.subjects import import_library, open_subject

CLOSE = 1e-5  # the same weights and operations in the same library, in another order at most

# A network in the shape of the authors' repository: a file that defines Model, its configuration, weights.
CODE = """
import torch
class Model(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.scale = config["scale"]
    def forward(self, x):
        moments = torch.stack([x.mean(1), (x * x).mean(1)], 1) * self.scale
        hidden = moments.repeat(1, 3)
        return hidden, self.layer(moments)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "config").mkdir(parents=True)
    (folder / "models" / "weights").mkdir(parents=True)
    (folder / "models" / "AASIST.py").write_text(CODE)
    (folder / "config" / "AASIST-L.conf").write_text(json.dumps({"model_config": {"scale": 10.0}}))
    weights = {"layer.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "layer.bias": torch.tensor([0.0, 0.5])}
    torch.save(weights, folder / "models" / "weights" / "AASIST-L.pth")
    return folder


def expected(clip: np.ndarray) -> float:
    moments = 10 * np.array([clip.mean(), (clip.astype(np.float64) ** 2).mean()])
    return float(moments @ [3.0, 4.0] + 0.5)


def test_the_authors_code_is_run_as_it_is(checkout: Path, tmp_path: Path) -> None:
    weights = save_network(tmp_path / "work" / "network", "aasist-l", None, checkout)
    assert weights.read_bytes() == (checkout / "models" / "weights" / "AASIST-L.pth").read_bytes()
    peer_builds.build("pytorch-eager", tmp_path / "work")
    path = peer_builds.BUILDS["pytorch-eager"].path(tmp_path / "work")
    clip = speech_like(3)
    subject = open_subject(path, threads=1)
    assert subject.shape == SHAPE == (1, CLIP_SAMPLES)
    # The bona fide logit: the last of the smaller output.
    assert subject.score(subject.run(clip[None])) == pytest.approx(expected(clip), abs=CLOSE)
    assert subject.facts == {"format": "torch-eager", "manifest": False}


def test_without_a_checkout_the_network_is_ours(tmp_path: Path) -> None:
    save_network(tmp_path / "network", "aasist-l", "random", None)
    with torch.inference_mode():
        embedding, logits = open_network(tmp_path / "network")(torch.from_numpy(speech_like(0))[None])
    assert logits.shape == (1, 2)
    assert embedding.shape[0] == 1
    assert embedding.numel() > 2


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no checkout of the public AASIST code"):
        save_network(tmp_path / "network", "aasist-l", None, tmp_path)


def test_a_missing_library_or_file_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MNN", None)  # as where it is not installed
    (tmp_path / "plain-export.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r"antispoof\[peers\]"):
        peer_builds.build("mnn", tmp_path)
    (tmp_path / "x.peer").mkdir()
    (tmp_path / "x.peer" / "peer.json").write_text('{"runtime": "mnn"}')
    with pytest.raises(UserError, match=r"antispoof\[peers\]"):
        open_run(tmp_path / "x.peer", 1)
    (tmp_path / "plain-export.onnx").unlink()
    with pytest.raises(UserError, match="is made from plain-export, which could not be made"):
        peer_builds.build("mnn", tmp_path)


def test_unknown_peers_and_too_few_recordings_are_refused(speech_folder: Path) -> None:
    with pytest.raises(UserError, match="no peer is called 'tensorrt'"):
        peers.chosen("our-onnx,tensorrt")
    assert peers.chosen("plain-export") == ["plain-export", "pytorch-eager"]
    with pytest.raises(UserError, match="holds 3 recordings"):
        peers.clips_for(speech_folder)
    parity, calibration = peers.clips_for(None)
    assert parity.shape == calibration.shape == (peers.CLIPS, CLIP_SAMPLES)
    assert not any(np.array_equal(a, b) for a in parity for b in calibration)


def test_a_time_that_results_cannot_hold_is_refused() -> None:
    with pytest.raises(UserError, match="--seconds a finite number"):
        peers.main(["--seconds", "inf"])


@pytest.mark.slow
def test_a_whole_run_keeps_what_failed_as_a_row(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "peers.json"
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"no model")
    flags = ["--checkout", str(checkout), "--only", "plain-export,pytorch-eager", "--extra", f"wrong={wrong}"]
    flags += ["--work", str(tmp_path / "work"), "--repeats", "10", "--seconds", "5", "--json", str(out)]
    assert peers.main(flags) == 1  # one of our own files failed
    rows: dict[str, Any] = {row["label"]: row for row in read_results(out, "peers")["rows"]}
    assert list(rows) == ["plain-export", "wrong", "pytorch-eager"]
    assert rows["plain-export"]["parity"]["max"] < CLOSE
    assert rows["pytorch-eager"]["parity"]["max"] == 0
    assert rows["wrong"]["failed"].startswith("does not run: ")
    assert rows["plain-export"]["rounds"] == 10
    shown = capsys.readouterr().out
    assert "does not run" in shown
    text = result_tables.peers(read_results(out, "peers"))
    assert text.count("\n| ") == 5 - 1
    assert str(tmp_path) not in out.read_text()  # results are published


def test_libraries_cannot_report_to_their_makers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in REPORTING:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))  # undone behind the test
    (tmp_path / "x.peer").mkdir()
    (tmp_path / "x.peer" / "peer.json").write_text('{"runtime": "torch-eager"}')
    import_library(tmp_path / "x.peer")
    for name in REPORTING:
        with pytest.raises(ImportError):
            __import__(name)
