"""What the command refuses: bad files are listed, bad arguments told, and no table overwritten unasked."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, CheckFailed, UserError
from antispoof.score_files import read_scores
from runtimes.score import main
from tests.score.tables import rows_of

BROKEN = {
    "cut.wav": "cut short",
    "empty.wav": "is empty",
    "page.mp3": "not audio",
    "silent.flac": "is silent",
}
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def broken(clips: Path, tmp_path: Path) -> Path:
    """A folder of one good recording and four that are none."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "cut.wav").write_bytes((clips / "a.wav").read_bytes()[:9_000])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "page.mp3").write_text("<html>not found</html>")
    soundfile.write(folder / "silent.flac", np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
    shutil.copy(clips / "a.wav", folder / "good.wav")
    return folder


def test_bad_files_are_listed_and_the_good_one_scored(
    exported_model: Path, broken: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "scores.tsv"
    assert main([str(exported_model), str(broken), "--out", str(out), "--workers", "2"]) == EXIT_CHECK_FAILED
    assert [row[0] for row in rows_of(out.read_text())] == ["path", "good.wav"]
    *listed, last = capsys.readouterr().err.splitlines()
    assert last == "4 of 5 files are not in the table"
    for line, (name, reason) in zip(listed, BROKEN.items(), strict=True):
        assert line.startswith(f"not scored: {name!r}: ")
        assert reason in line
        assert str(broken) not in line


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_names_that_fit_no_table_are_bad_files(
    exported_model: Path, clips: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "names"
    for name in (b"tab\there.wav", b"line\nbreak.wav", b" blank.wav", b"latin\xe9.wav", b"ok.wav"):
        (folder / os.fsdecode(name)).parent.mkdir(exist_ok=True)
        shutil.copy(clips / "a.wav", folder / os.fsdecode(name))
    out = tmp_path / "scores.tsv"
    assert main([str(exported_model), str(folder), "--out", str(out)]) == EXIT_CHECK_FAILED
    assert read_scores(out).names == ["ok.wav"]
    listed = capsys.readouterr().err.splitlines()
    assert len(listed) == 5
    assert sum("a name with" in line for line in listed) == 4


def test_where_nothing_can_be_scored_no_table_is_written(
    exported_model: Path, broken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.tsv"
    out.write_text("an earlier table")
    (broken / "good.wav").unlink()
    with pytest.raises(CheckFailed, match="none of 4 files"):
        main([str(exported_model), str(broken), "--out", str(out), "--force"])
    assert out.read_text() == "an earlier table"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "scores.tsv"]


def test_nothing_is_overwritten_without_force(
    exported_model: Path, clips: Path, scored: str, tmp_path: Path
) -> None:
    out = tmp_path / "scores.tsv"
    out.write_text("an earlier table")
    arguments = [str(exported_model), str(clips / "a.wav"), "--out", str(out)]
    with pytest.raises(UserError, match=r"scores\.tsv exists; --force"):
        main(arguments)
    assert out.read_text() == "an earlier table"
    assert main([*arguments, "--force"]) == EXIT_DONE
    assert out.read_text().splitlines() == scored.splitlines()[:2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "0"], "--workers must be at least 1"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--split", "dev"], "belong to a protocol"),
        (["--protocol", "{clips}/list.tsv", "{clips}"], "takes one PATH"),
        (["--protocol", "{tmp}/list.tsv"], "holds the audio of no trial"),
        (["--out", "{tmp}/gone/scores.tsv"], "no such folder"),
        (["--out", "{tmp}", "--force"], "not a regular file"),
        (["--out", os.devnull, "--force"], "not a regular file"),
        (["--model", "aasist"], "--model is for checkpoints"),
        (["--threshold", "eer"], "the model has none"),
    ],
)
def test_arguments_that_cannot_end_well(
    flags: list[str], message: str, exported_model: Path, clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.tsv").write_text("path\tlabel\nother.wav\tspoof\n")
    given = [flag.format(clips=clips, tmp=tmp_path) for flag in flags]
    with pytest.raises(UserError, match=message):
        main([str(exported_model), str(clips), *given])
    assert [path.name for path in tmp_path.iterdir()] == ["list.tsv"]
