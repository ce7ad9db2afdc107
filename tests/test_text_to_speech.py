"""Spoofs by text-to-speech programs: their sound, their list, going on with them, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError
from train import text_to_speech
from train.dataset import Row, read_rows, training_rows
from train.recipe import DataRecipe
from train.text_to_speech import ENGINES

INSTALLED = [engine for engine in ENGINES if shutil.which(engine)]
needs_one = pytest.mark.skipif(not INSTALLED, reason=f"needs {' or '.join(ENGINES)}")


def speak(out: Path, *more: str) -> list[Row]:
    assert text_to_speech.main(["--out", str(out), "--count", "4", *more]) == 0
    return read_rows(out / "manifest.tsv", out)


def program(folder: Path, name: str, script: str) -> None:
    """Puts a shell script on the path as a program."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(name, marks=pytest.mark.skipif(name not in INSTALLED, reason=f"needs {name}"))
        for name in ENGINES
    ],
)
def test_clips_are_speech_without_silence_around_it(tmp_path: Path, engine: str) -> None:
    rows = speak(tmp_path / "one", "--engine", engine)
    assert {(row.label, row.split, row.dataset) for row in rows} == {
        ("spoof", "train", f"text-to-speech by {engine}")
    }
    assert all(row.attack.startswith(engine) and row.licence for row in rows)
    assert len(rows) == 4
    for row in rows:
        waveform, rate = soundfile.read(row.folder / row.path)
        assert rate == SAMPLE_RATE
        assert 1 < len(waveform) / rate < 30
        ends = max(np.abs(waveform[:2_400]).max(), np.abs(waveform[-2_400:]).max())
        assert np.abs(waveform).max() > 0.05
        assert ends > 0.005
    # The same seed says the same, another seed something else.
    bytes_of = [
        [(row.folder / row.path).read_bytes() for row in each]
        for each in (
            rows,
            speak(tmp_path / "two", "--engine", engine),
            speak(tmp_path / "three", "--engine", engine, "--seed", "1"),
        )
    ]
    assert bytes_of[0] == bytes_of[1]
    assert not set(bytes_of[0]) & set(bytes_of[2])


@needs_one
def test_they_are_trained_on_as_spoofs_of_their_own(tmp_path: Path) -> None:
    genuine = Row("a.flac", "bonafide", "train", "voices", "-", "", "CC0", tmp_path)
    speech, _, _ = training_rows([genuine], DataRecipe(), speak(tmp_path / "spoken"))
    assert [row.label for row in speech] == ["bonafide", *["spoof"] * 4]


@needs_one
def test_a_stopped_run_goes_on_to_the_same_clips(tmp_path: Path) -> None:
    out = tmp_path / "spoken"
    rows = speak(out)
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / rows[2].path).unlink()
    (out / "manifest.tsv").unlink()
    with pytest.raises(UserError, match="--resume goes on"):
        speak(out)
    assert speak(out, "--resume") == rows
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


@needs_one
def test_clips_of_another_seed_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    first = speak(tmp_path / "both", "--seed", "0")
    second = speak(tmp_path / "both", "--seed", "1", "--resume")
    alone = speak(tmp_path / "alone", "--seed", "1")
    assert not {row.path for row in first} & {row.path for row in second}
    for one, other in zip(second, alone, strict=True):
        assert (one.path, one.attack) == (other.path, other.attack)
        assert (one.folder / one.path).read_bytes() == (other.folder / other.path).read_bytes()


@needs_one
def test_texts_of_ones_own_are_said(tmp_path: Path) -> None:
    short, long = tmp_path / "short.txt", tmp_path / "long.txt"
    short.write_text("No.\n\n")
    long.write_text("-h is how this rather long sentence begins, and it goes on for quite a while.\n")
    lengths = []
    for texts in (short, long):
        rows = speak(tmp_path / texts.stem, "--texts", str(texts))
        lengths.append(np.mean([soundfile.info(row.folder / row.path).duration for row in rows]))
    assert lengths[1] > 3 * lengths[0]


def test_what_cannot_be_spoken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="install espeak-ng or flite"):
        speak(tmp_path / "out")
    with pytest.raises(UserError, match="flite is not installed"):
        speak(tmp_path / "out", "--engine", "flite")
    program(tmp_path, "flite", "echo 'Voices available: kal slt'")
    with pytest.raises(UserError, match="flite has no voice for 'de'"):
        speak(tmp_path / "out", "--engine", "flite", "--language", "de")
    with pytest.raises(UserError, match="--count"):
        speak(tmp_path / "out", "--count", "0")
    (tmp_path / "empty.txt").write_text("\n \n")
    for texts, words in (("empty.txt", "holds no text"), ("none.txt", "cannot read")):
        with pytest.raises(UserError, match=words):
            speak(tmp_path / "out", "--texts", str(tmp_path / texts))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="flite wrote nothing"):
        speak(tmp_path / "out")
    program(tmp_path, "flite", "[ $1 = -lv ] && echo 'Voices available: slt' || { echo broken >&2; exit 3; }")
    with pytest.raises(UserError, match="flite failed: broken"):
        speak(tmp_path / "out", "--resume")
    assert not list((tmp_path / "out").iterdir())


def test_another_language_needs_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    listing = r"printf 'Pty Language Age/Gender VoiceName File Other\n 5 xx --/M Name gmw/xx\n'"
    program(tmp_path, "espeak-ng", listing)
    with pytest.raises(UserError, match="give --texts"):
        speak(tmp_path / "out", "--language", "xx")
