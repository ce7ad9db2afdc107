"""The streaming command and its sources: what it says, when, and what it does when the source goes away."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from antispoof.audio import CLIP_SAMPLES, SAMPLE_RATE, fit_length, load_audio
from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, UserError
from antispoof.manifest import Calibration, Threshold, manifest_path
from antispoof.manifest_reader import read_manifest
from antispoof.speechlike import speech_like
from runtimes import load
from runtimes.capture import Lost, SourceFailed, open_microphone, open_recording
from runtimes.stream import main

COMMAND = Path(__file__).resolve().parents[1] / "runtimes" / "stream.py"
TOLERANCE = 1e-5  # of a score of the same samples in another batch
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def calibrated(exported_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported model with a calibration and a threshold that its scores lie around."""
    path = tmp_path_factory.mktemp("calibrated") / exported_model.name
    path.write_bytes(exported_model.read_bytes())
    runtime = load(exported_model)
    middle = float(np.median(runtime.score(np.stack([speech_like(seed) for seed in range(4)]))))
    manifest = read_manifest(exported_model)
    decided = replace(
        manifest,
        calibration=Calibration(50.0, -50.0 * middle, "test"),
        thresholds=(Threshold("eer", middle, "test"), Threshold("never", middle + 100, "test")),
    )
    manifest_path(path).write_text(decided.to_json())
    return path


def record(path: Path, waveform: np.ndarray, rate: int = SAMPLE_RATE) -> Path:
    soundfile.write(path, waveform, rate)
    return path


def stream(capsys: Capture, *arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    code = main([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, [json.loads(row) for row in out.splitlines()], err


def test_a_recording_is_scored_as_its_file(tmp_path: Path, calibrated: Path, capsys: Capture) -> None:
    wav = record(tmp_path / "a.wav", speech_like(1, 6 * SAMPLE_RATE))
    code, rows, err = stream(capsys, calibrated, "--wav", wav, "--no-gate")
    assert code == EXIT_DONE
    scored = [row for row in rows if row["status"] == "scored"]
    # one at every hop around the first whole window, and one at the end
    assert [row["end_sample"] for row in scored] == [*range(16_600, 96_001, 8_000), 96_000]
    expected = load(calibrated).score(fit_length(load_audio(wav))[None])[0]
    (whole,) = (row for row in scored if row["end_sample"] == CLIP_SAMPLES)
    assert whole["score"] == pytest.approx(expected, abs=TOLERANCE)
    calibration = read_manifest(calibrated).calibration
    assert calibration is not None
    assert whole["llr"] == pytest.approx(calibration.llr(whole["score"]), abs=1e-9)
    assert {row["decision"] for row in scored} <= {"undecided", "bonafide", "spoof"}
    assert f"{len(scored)} windows scored" in err


def test_decisions_follow_the_operating_point(tmp_path: Path, calibrated: Path, capsys: Capture) -> None:
    wav = record(tmp_path / "a.wav", speech_like(1, 6 * SAMPLE_RATE))
    _, rows, err = stream(capsys, calibrated, "--wav", wav, "--threshold", "never")
    assert rows[-1]["decision"] == "spoof"
    assert "decided spoof at" in err
    assert sum(row.get("changed", False) for row in rows) == 1
    with pytest.raises(UserError, match="no threshold 'other'"):
        main([str(calibrated), "--wav", str(wav), "--threshold", "other"])


def test_under_a_second_of_speech(tmp_path: Path, exported_model: Path, capsys: Capture) -> None:
    wav = record(tmp_path / "short.wav", speech_like(2, 12_000))
    code, rows, err = stream(capsys, exported_model, "--wav", wav)
    assert code == EXIT_CHECK_FAILED
    assert rows
    assert all(row["status"] == "not enough speech" and "score" not in row for row in rows)
    assert "not enough speech" in err
    assert main([str(exported_model), "--wav", str(wav)]) == EXIT_CHECK_FAILED
    assert "not enough speech" in capsys.readouterr().out


def test_without_calibration_there_are_scores_only(
    tmp_path: Path, exported_model: Path, capsys: Capture
) -> None:
    wav = record(tmp_path / "a.wav", speech_like(3, 3 * SAMPLE_RATE))
    code, rows, err = stream(capsys, exported_model, "--wav", wav)
    assert code == EXIT_DONE
    assert any("score" in row for row in rows)
    assert not any("decision" in row or "llr" in row for row in rows)
    assert "no decision" in err


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 9), (12_345, 1)])
def test_other_rates_and_channels(
    rate: int, channels: int, tmp_path: Path, exported_model: Path, capsys: Capture
) -> None:
    import soxr

    x = soxr.resample(speech_like(4, 5 * SAMPLE_RATE), SAMPLE_RATE, rate, quality="VHQ")
    wav = record(tmp_path / "a.wav", np.stack([x] * channels, axis=1), rate)
    _, rows, _ = stream(capsys, exported_model, "--wav", wav, "--no-gate", "--hop", 2)
    expected = load(exported_model).score(fit_length(load_audio(wav))[None])[0]
    (whole,) = (row for row in rows if row["end_sample"] == CLIP_SAMPLES)
    assert whole["score"] == pytest.approx(expected, abs=1e-3)  # promised, beside soxr's


def test_a_recording_cut_short_says_so(tmp_path: Path, exported_model: Path, capsys: Capture) -> None:
    whole = record(tmp_path / "a.flac", speech_like(5, 10 * SAMPLE_RATE)).read_bytes()
    cut = tmp_path / "cut.flac"
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    code, rows, err = stream(capsys, exported_model, "--wav", cut)
    assert code == EXIT_CHECK_FAILED
    assert any("score" in row for row in rows)
    assert "the recording is" in err


def test_samples_that_are_no_numbers_end_it(tmp_path: Path, exported_model: Path, capsys: Capture) -> None:
    holed = speech_like(4, 6 * SAMPLE_RATE)
    holed[5 * SAMPLE_RATE] = np.nan
    wav = tmp_path / "nan.wav"
    soundfile.write(wav, holed, SAMPLE_RATE, subtype="FLOAT")
    code, rows, err = stream(capsys, exported_model, "--wav", wav)
    assert code == EXIT_CHECK_FAILED
    assert max(row["end_sample"] for row in rows) <= 5 * SAMPLE_RATE
    assert "NaN or infinite, from 5.0 s on" in err


def test_users_mistakes(tmp_path: Path, exported_model: Path) -> None:
    wav = record(tmp_path / "a.wav", speech_like(6, SAMPLE_RATE))
    for arguments, message in (
        (["--wav", str(tmp_path / "none.wav")], "does not exist"),
        (["--wav", str(tmp_path)], "is a directory"),
        (["--wav", str(wav), "--hop", "0"], "--hop is 0 s"),
        (["--wav", str(wav), "--hop", "nan"], "--hop is nan s"),
        (["--wav", str(wav), "--smoothing", "-1"], "--smoothing is -1 s"),
        (["--wav", str(wav), "--device", "3"], "--device belongs to --microphone"),
    ):
        with pytest.raises(UserError, match=message):
            main([str(exported_model), *arguments])


# The microphone. None is here, so the package that drives it is replaced by one that says what it would.


class PortAudioError(Exception):
    pass


class FakeStream:
    """Delivers speech, an overrun after two seconds, and after four the words that it was taken away."""

    def __init__(self, **settings: Any) -> None:
        self.at, self.block, self.closed = 0, settings["blocksize"], False
        assert settings["samplerate"] == SAMPLE_RATE
        self.speech = (speech_like(7, 4 * SAMPLE_RATE)[:, None] * 32_767).astype(np.int16)

    def start(self) -> None:
        pass

    def read(self, frames: int) -> tuple[np.ndarray, bool]:
        if self.at >= len(self.speech):
            raise PortAudioError("Device unavailable")
        overrun = self.at == 2 * SAMPLE_RATE
        self.at += frames
        return self.speech[self.at - frames : self.at], overrun

    def close(self) -> None:
        self.closed = True


def sounddevice(**parts: Any) -> types.ModuleType:
    module = types.ModuleType("sounddevice")
    known = {"PortAudioError": PortAudioError, "InputStream": FakeStream}
    vars(module).update(known, query_devices=lambda *_: {"default_samplerate": 16_000.0}, **parts)
    return module


def test_a_microphone_that_is_taken_away(
    monkeypatch: pytest.MonkeyPatch, exported_model: Path, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", sounddevice())
    monkeypatch.setattr("runtimes.capture.time.monotonic", lambda: 100.0)  # a clock that no load moves
    code, rows, err = stream(capsys, exported_model, "--microphone", "--no-gate")
    assert code == EXIT_CHECK_FAILED
    assert "the microphone stopped: Device unavailable" in err
    assert "1 samples lost" in err  # the least that an overrun can be
    rows = [row for row in rows if row["status"] == "scored"]
    assert rows[-1]["end_sample"] == 4 * SAMPLE_RATE + 1
    # no window spans the overrun
    assert all(row["end_sample"] <= 2 * SAMPLE_RATE or row["start_sample"] > 2 * SAMPLE_RATE for row in rows)


def test_no_microphone(monkeypatch: pytest.MonkeyPatch, exported_model: Path) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(UserError, match="needs the sounddevice package"):
        main([str(exported_model), "--microphone"])

    def no_device(*_: object) -> None:
        raise ValueError("No input device matching 'usb'")

    monkeypatch.setitem(sys.modules, "sounddevice", sounddevice())
    monkeypatch.setattr(sys.modules["sounddevice"], "query_devices", no_device)
    with pytest.raises(UserError, match="cannot listen to usb: No input device"), open_microphone("usb"):
        pass


def test_overruns_are_gaps_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((100.0, 103.0))
    monkeypatch.setitem(sys.modules, "sounddevice", sounddevice())
    monkeypatch.setattr("runtimes.capture.time.monotonic", lambda: next(clock))
    heard: list[np.ndarray | Lost] = []
    with open_microphone() as source, pytest.raises(SourceFailed, match="Device unavailable"):
        heard.extend(source.pieces)  # what came before stays: a list is extended one by one
    (lost,) = (piece for piece in heard if isinstance(piece, Lost))
    assert lost.frames == 3 * SAMPLE_RATE - 2 * SAMPLE_RATE - SAMPLE_RATE // 10


def test_recordings_come_in_blocks(tmp_path: Path) -> None:
    x = speech_like(8, 20_000)
    with open_recording(record(tmp_path / "a.wav", x)) as source:
        pieces = [piece for piece in source.pieces if not isinstance(piece, Lost)]
    assert len(pieces) > 10
    assert np.abs(np.concatenate(pieces)[:, 0] - x).max() < 1 / 32_767


def test_an_interrupt_ends_with_the_summary(tmp_path: Path, exported_model: Path) -> None:
    wav = record(tmp_path / "long.wav", np.tile(speech_like(9, 20 * SAMPLE_RATE), 30))
    command = [sys.executable, str(COMMAND), str(exported_model), "--wav", str(wav), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["status"] != "scored":
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_DONE
    assert "interrupted" in err
    assert "windows scored" in err
    assert "Traceback" not in err
    assert all(json.loads(row) for row in out.splitlines())


def test_fast_is_for_halves(exported_model: Path) -> None:
    with pytest.raises(UserError, match="--fast is for models exported in two halves"):
        main([str(exported_model), "--wav", "any.wav", "--fast"])
