"""What users get wrong, command by command: one line, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import EXIT_CHECK_FAILED, EXIT_USER_ERROR, run
from antispoof.manifest import manifest_path
from antispoof.pretrained import DEFAULT_MODEL
from antispoof.speechlike import speech_like
from benchmarks import accuracy, bench, latency, parity, report, robustness
from export import sign, to_onnx
from export.signing import new_key
from quantize import onnx_int8
from runtimes import mil, score
from train import card, fit

WEB_PAGE = "<!DOCTYPE html><html><body>404 Not Found</body></html>"


@pytest.fixture
def place(tmp_path: Path, exported_model: Path) -> Path:
    """A folder with a good model, a good clip, good lists, and many things that are not."""
    for path in (exported_model, manifest_path(exported_model)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    speech = speech_like(0, 2 * SAMPLE_RATE)
    soundfile.write(tmp_path / "good.wav", speech, SAMPLE_RATE)
    whole = (tmp_path / "good.wav").read_bytes()
    holed = speech.copy()
    holed[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", holed, SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "silent.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    soundfile.write(tmp_path / "blink.wav", speech[:800], SAMPLE_RATE)
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "page.wav").write_text(WEB_PAGE)
    (tmp_path / "noise.flac").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "page.pth").write_text(WEB_PAGE)
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 and no more")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "garbage.safetensors").write_bytes(b"\xff" * 64)
    (tmp_path / "orphan.onnx").write_bytes(exported_model.read_bytes())
    (tmp_path / "tampered.onnx").write_bytes(exported_model.read_bytes()[:-1] + b"\x00")
    manifest_path(tmp_path / "tampered.onnx").write_bytes(manifest_path(exported_model).read_bytes())
    (tmp_path / "liar.onnx").write_bytes(exported_model.read_bytes())
    facts = json.loads(manifest_path(exported_model).read_text())
    facts["input"]["sample_rate"] = 8_000
    manifest_path(tmp_path / "liar.onnx").write_text(json.dumps(facts))
    (tmp_path / "labels.tsv").write_text("path\tlabel\ngood.wav\tbonafide\n")
    (tmp_path / "twice.tsv").write_text("path\tlabel\ngood.wav\tbonafide\ngood.wav\tspoof\n")
    (tmp_path / "odd.tsv").write_text("path\tlabel\ngood.wav\tmaybe\n")
    (tmp_path / "elsewhere.tsv").write_text("path\tlabel\n../../etc/passwd\tbonafide\n")
    (tmp_path / "scores.tsv").write_text("path\tscore\ngood.wav\t1.5\n")
    (tmp_path / "words.tsv").write_text("path\tscore\ngood.wav\thigh\n")
    (tmp_path / "inverted.txt").write_text(
        "".join(f"b{i} - bonafide {-i}\ns{i} A01 spoof {i}\n" for i in range(9))
    )
    new_key(tmp_path / "key.pem")
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / f"{DEFAULT_MODEL}.onnx").write_text("mine")
    return tmp_path


Arguments = Callable[[Path], list[object]]
EXPORT, SCORE, ACCURACY = to_onnx.main, score.main, accuracy.main
TRAINING = ["--config", Path(fit.__file__).parent / "configs" / "fscnn.yaml"]
RANDOM = ["--checkpoint", "random", "--set", "clip_samples=16000"]


def model(p: Path) -> Path:
    return p / "aasist-l.onnx"


def labelled(p: Path) -> list[object]:
    return ["--audio", p, "--protocol", p / "labels.tsv"]


CASES: dict[str, tuple[Callable[[list[str]], int], Arguments, int, str]] = {
    # export
    "checkpoint missing": (EXPORT, lambda p: ["--checkpoint", p / "no.pth"], 2, "no such checkpoint"),
    "checkpoint a web page": (EXPORT, lambda p: ["--checkpoint", p / "page.pth"], 2, "web page"),
    "checkpoint truncated": (EXPORT, lambda p: ["--checkpoint", p / "cut.pth"], 2, "damaged"),
    "checkpoint of something else": (
        EXPORT,
        lambda p: ["--checkpoint", p / "other.pth"],
        2,
        "none of the models",
    ),
    "checkpoint of another model": (
        EXPORT,
        lambda p: ["--model", "aasist", "--checkpoint", p / "other.pth"],
        2,
        "not a checkpoint of aasist",
    ),
    "checkpoint garbage": (EXPORT, lambda p: ["--checkpoint", p / "garbage.safetensors"], 2, "safetensors"),
    "checkpoint an audio file": (
        EXPORT,
        lambda p: ["--checkpoint", p / "good.wav"],
        2,
        "a checkpoint ends in",
    ),
    "unknown setting": (EXPORT, lambda p: ["--checkpoint", "random", "--set", "colour=red"], 2, "colour"),
    "setting without value": (
        EXPORT,
        lambda p: ["--checkpoint", "random", "--set", "colour"],
        2,
        "KEY=VALUE",
    ),
    "setting of the wrong kind": (
        EXPORT,
        lambda p: ["--checkpoint", "random", "--set", "clip_samples=long"],
        2,
        "clip_samples",
    ),
    "clip too short for the network": (
        EXPORT,
        lambda p: ["--checkpoint", "random", "--set", "clip_samples=100"],
        2,
        "clip_samples",
    ),
    "opset of the future": (EXPORT, lambda p: [*RANDOM, "--opset", "99"], 2, "--opset"),
    "target exists": (EXPORT, lambda p: [*RANDOM, "--out", p / "taken"], 2, "--force"),
    "target a file": (EXPORT, lambda p: [*RANDOM, "--out", p / "good.wav"], 2, "cannot write"),
    "name with a path": (EXPORT, lambda p: [*RANDOM, "--name", "../up"], 2, "not a file name"),
    "name without an end": (EXPORT, lambda p: [*RANDOM, "--name", 300 * "a"], 2, "not a file name"),
    "name that no file has": (EXPORT, lambda p: [*RANDOM, "--name", "a\0b"], 2, "not a file name"),
    "clip of a century": (EXPORT, lambda p: ["--set", "clip_samples=50491123200000"], 2, "more than 3600 s"),
    "configuration called name": (EXPORT, lambda p: ["--set", "name=x"], 2, "name"),
    "no audio to verify on": (EXPORT, lambda p: [*RANDOM, "--verify-audio", p / "folder"], 2, "folder"),
    "verification folder missing": (
        EXPORT,
        lambda p: [*RANDOM, "--verify-audio", p / "no"],
        2,
        "no such folder",
    ),
    "no weights known": (EXPORT, lambda p: ["--model", "aasist"], 2, "--checkpoint"),
    "official weights of an unofficial model": (
        EXPORT,
        lambda p: ["--model", "bimamba-sinc", "--checkpoint", "official"],
        2,
        "no official weights",
    ),
    "WavLM that is not there": (
        EXPORT,
        lambda p: ["--model", "bimamba-lora", "--checkpoint", "random", "--wavlm", p / "folder"],
        2,
        "folder",
    ),
    # score
    "model missing": (SCORE, lambda p: [p / "no.onnx", p / "good.wav"], 2, "no such model"),
    "model not a model": (SCORE, lambda p: [p / "good.wav", p / "good.wav"], 2, "not a model file"),
    "model without manifest": (SCORE, lambda p: [p / "orphan.onnx", p / "good.wav"], 2, "no manifest"),
    "model tampered with": (SCORE, lambda p: [p / "tampered.onnx", p / "good.wav"], 2, "sha256"),
    "manifest that lies": (SCORE, lambda p: [p / "liar.onnx", p / "good.wav"], 2, "sample_rate is 8000"),
    "audio missing": (SCORE, lambda p: [model(p), p / "no.wav"], 2, "no.wav"),
    "folder without audio": (SCORE, lambda p: [model(p), p / "folder"], 2, "folder"),
    "no threads": (SCORE, lambda p: [model(p), p / "good.wav", "--threads", "0"], 2, "threads"),
    "no workers": (SCORE, lambda p: [model(p), p / "good.wav", "--workers", "0"], 2, "workers"),
    "scores exist": (SCORE, lambda p: [model(p), p / "good.wav", "--out", p / "scores.tsv"], 2, "--force"),
    "protocol with an odd label": (
        SCORE,
        lambda p: [model(p), p, "--protocol", p / "odd.tsv"],
        2,
        "odd.tsv:2",
    ),
    "protocol with a trial twice": (
        SCORE,
        lambda p: [model(p), p, "--protocol", p / "twice.tsv"],
        2,
        "twice",
    ),
    "protocol that is audio": (SCORE, lambda p: [model(p), p, "--protocol", p / "good.wav"], 2, "good.wav"),
    "audio empty": (SCORE, lambda p: [model(p), p / "empty.wav"], 1, "empty"),
    "audio truncated": (SCORE, lambda p: [model(p), p / "cut.wav"], 1, "cut.wav"),
    "audio with NaN": (SCORE, lambda p: [model(p), p / "nan.wav"], 1, "NaN"),
    "audio silent": (SCORE, lambda p: [model(p), p / "silent.wav"], 1, "silent"),
    "audio of 50 ms": (SCORE, lambda p: [model(p), p / "blink.wav"], 1, "0.1 s"),
    "audio a web page": (SCORE, lambda p: [model(p), p / "page.wav"], 1, "page.wav"),
    "audio noise bytes": (SCORE, lambda p: [model(p), p / "noise.flac"], 1, "noise.flac"),
    # accuracy
    "scores missing": (ACCURACY, lambda p: [p / "no.tsv"], 2, "no.tsv"),
    "scores without labels": (ACCURACY, lambda p: [p / "scores.tsv"], 2, "--protocol"),
    "scores that are words": (
        ACCURACY,
        lambda p: [p / "words.tsv", "--protocol", p / "labels.tsv"],
        2,
        "words.tsv:2",
    ),
    "scores of one class": (
        ACCURACY,
        lambda p: [p / "scores.tsv", "--protocol", p / "labels.tsv"],
        2,
        "spoof",
    ),
    "scores upside down": (ACCURACY, lambda p: [p / "inverted.txt"], 2, "inverted"),
    "scores that are audio": (ACCURACY, lambda p: [p / "good.wav"], 2, "good.wav"),
    # settings that no network has
    "bins below zero": (EXPORT, lambda p: [*RANDOM, "--set", "bins=-5"], 2, "bins=-5"),
    "dropout above one": (EXPORT, lambda p: [*RANDOM, "--set", "dropout=7"], 2, "dropout=7"),
    "no channels": (EXPORT, lambda p: [*RANDOM, "--set", "channels=[]"], 2, "channels is empty"),
    # places that cannot be written to
    "quantized into a file": (
        onnx_int8.main,
        lambda p: [model(p), "--recipe", "w8", "--out", p / "good.wav"],
        2,
        "good.wav: File exists",
    ),
    "exported under a file's name": (EXPORT, lambda p: ["--out", p / "mine.onnx"], 2, "takes the folder"),
    "quantized under a file's name": (
        onnx_int8.main,
        lambda p: [model(p), "--recipe", "w8", "--out", p / "mine.onnx"],
        2,
        "takes the folder",
    ),
    "trained into a file": (
        fit.main,
        lambda p: [*TRAINING, "--audio", p, "--out", p / "good.wav"],
        2,
        "good.wav",
    ),
    "bench into a file": (bench.main, lambda p: ["fscnn", "--out", p / "good.wav"], 2, "good.wav"),
    "latency into a file": (
        latency.main,
        lambda p: [model(p), "--json", p / "good.wav" / "x.json"],
        2,
        "good.wav is no folder",
    ),
    "results into a folder": (
        latency.main,
        lambda p: [model(p), "--json", p / "folder", "--force"],
        2,
        "a folder",
    ),
    # lists of one class, and what a list has not
    "robustness of one class": (
        robustness.main,
        lambda p: [model(p), *labelled(p)],
        2,
        "every trial is bonafide",
    ),
    "bench of one class": (
        bench.main,
        lambda p: ["fscnn", *labelled(p), "--out", p / "bench"],
        2,
        "every trial is bonafide",
    ),
    "curves of one class": (
        report.main,
        lambda p: ["--html", p / "page.html", "--scores", p / "scores.tsv", "--protocol", p / "labels.tsv"],
        2,
        "every trial is bonafide",
    ),
    # limits that are none
    "tolerance not a number": (
        mil.main,
        lambda p: [p / "no.mlpackage", "--tolerance", "nan"],
        2,
        "--tolerance",
    ),
    "correlation above one": (
        parity.main,
        lambda p: [
            model(p),
            model(p),
            "--audio",
            p,
            "--protocol",
            p / "labels.tsv",
            "--least-correlation",
            "2",
        ],
        2,
        "--least-correlation",
    ),
    "page and check": (report.main, lambda p: ["--html", p / "page.html", "--check"], 2, "one of them"),
    "card of nothing": (
        card.main,
        lambda p: [p / "no", "--audio", p, "--out", p / "x.safetensors"],
        2,
        "no such run",
    ),
    "one of two files to sign": (
        sign.main,
        lambda p: ["sign", model(p), p / "no.onnx", "--key", p / "key.pem"],
        2,
        "no.onnx",
    ),
}


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in files(folder)}


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_gets_one_line_and_leaves_nothing(
    case: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main, arguments, code, message = CASES[case]
    monkeypatch.chdir(place)  # where an export would write without --out
    before = snapshot(place)
    with pytest.raises(SystemExit) as stopped:
        run(lambda: main([str(argument) for argument in arguments(place)]))
    printed = capsys.readouterr()
    assert stopped.value.code == code
    assert code in (EXIT_CHECK_FAILED, EXIT_USER_ERROR)
    assert message in printed.err
    if code == EXIT_USER_ERROR:
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert printed.out == ""
    assert "Traceback" not in printed.err
    assert snapshot(place) == before


def test_there_are_enough_mistakes() -> None:
    assert len(CASES) >= 30


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_gets_one_line() -> None:
    command = [sys.executable, "-m", "antispoof", "--help"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == EXIT_USER_ERROR
    assert done.stderr == "error: what was to be written: No space left on device\n"
