"""A stopped run goes on where it was, with its own rows and no others."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, EXIT_INTERRUPTED, UserError
from runtimes.clips import find_clips
from runtimes.score import main
from runtimes.score_table import conditions_of
from tests.score.tables import rows_of

COMMAND = Path(__file__).resolve().parents[2] / "runtimes" / "score.py"
DEADLINE = 60  # seconds a process may take to get somewhere, on a machine busy with other work


def stop(arguments: list[str], partial: Path, rows: int, sign: signal.Signals) -> tuple[int, str]:
    """Starts the command, sends it a signal once it has kept so many rows, and returns how it ended."""
    with subprocess.Popen(
        [sys.executable, str(COMMAND), *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + DEADLINE
        while not partial.exists() or partial.read_bytes().count(b"\n") <= rows:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(sign)
        return process.wait(DEADLINE), process.communicate()[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_stopped_run_goes_on_where_it_was(
    exported_model: Path, clips: Path, scored: str, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(60):  # enough never to be done before the signal comes
        shutil.copy(clips / ("a.wav" if index else "notes.txt"), folder / f"{index:02d}.wav")
    out, partial = tmp_path / "scores.tsv", tmp_path / "scores.tsv.partial"
    arguments = [str(exported_model), str(folder), "--out", str(out)]

    code, said = stop(arguments, partial, 2, signal.SIGINT)
    assert code == EXIT_INTERRUPTED
    assert said.splitlines()[-1] == "interrupted"
    assert f"of 60 files are done (kept in {partial}); the same command goes on" in said
    first = partial.read_bytes()
    code, _ = stop(arguments, partial, first.count(b"\n") + 1, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert partial.read_bytes().startswith(first)
    assert not out.exists()

    # What is left could be anything: a row cut in the middle goes, those before it stay, also the bad one.
    kept = first.splitlines(keepends=True)[:3]
    for index in range(3, 60):
        kept.append(kept[2].replace(b"01.wav", f"{index - 1:02d}.wav".encode()))
    partial.write_bytes(b"".join(kept[:-2]) + b'["57.wav", "0.1')
    assert main(arguments) == EXIT_CHECK_FAILED
    assert not partial.exists()
    score = scored.splitlines()[1].split("\t")[1]
    assert rows_of(out.read_text()) == [
        ["path", "score"],
        *([f"{index:02d}.wav", score] for index in range(1, 60)),
    ]


class Unfinished:
    """A command that was stopped after its only file, with a score that no model gave: 0.5."""

    def __init__(self, model: Path, clip: Path, folder: Path) -> None:
        self.clip, self.out, self.partial = clip, folder / "scores.tsv", folder / "scores.tsv.partial"
        self.arguments = [str(model), str(clip), "--out", str(self.out)]
        self.conditions = conditions_of(model, None, find_clips([clip]))
        self.leave(self.conditions)

    def leave(self, conditions: dict[str, str], row: str = '["a.wav", "0.5", null]\n') -> None:
        self.partial.write_text(json.dumps(conditions, sort_keys=True) + "\n" + row)

    def goes_on(self, *flags: str) -> bool:
        """Finishes the command; returns whether the row that was there is in the table."""
        assert main([*self.arguments, *flags]) == EXIT_DONE
        (_, score), *_ = rows_of(self.out.read_text())[1:]
        assert not self.partial.exists()
        return score == "0.5"


@pytest.fixture
def unfinished(exported_model: Path, clips: Path, tmp_path: Path) -> Unfinished:
    return Unfinished(exported_model, clips / "a.wav", tmp_path)


@pytest.mark.parametrize("flags", [[], ["--force"]])
def test_an_unfinished_run_is_taken_up_by_the_same_command(flags: list[str], unfinished: Unfinished) -> None:
    assert unfinished.goes_on(*flags)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "0"}, "is of another model;"),
        ({"list of files": "0"}, "is of another list of files;"),
        ({"model": "0", "list of files": "0"}, "is of another model and another list of files;"),
    ],
)
def test_an_unfinished_run_of_other_conditions_is_not_mixed_in(
    changed: dict[str, str], message: str, unfinished: Unfinished
) -> None:
    unfinished.leave(unfinished.conditions | changed)
    before = unfinished.partial.read_bytes()
    with pytest.raises(UserError, match=message):
        main(unfinished.arguments)
    assert unfinished.partial.read_bytes() == before
    assert not unfinished.goes_on("--force")


def test_conditions_tell_models_and_lists_apart(exported_model: Path, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    listed = find_clips([clips])
    variants = [
        conditions_of(exported_model, None, listed),
        conditions_of(exported_model, None, listed[:-1]),
        conditions_of(exported_model, None, find_clips([clips / "a.wav"])),
        conditions_of(exported_model, None, find_clips([tmp_path / "a.wav"])),
        conditions_of(exported_model, "aasist", listed),
        conditions_of(clips / "a.wav", None, listed),
    ]
    assert len({json.dumps(variant) for variant in variants}) == len(variants)
    assert variants[0] == conditions_of(exported_model, None, find_clips([clips]))


@pytest.mark.parametrize("content", ["notes of mine", "[1, 2]\n", "{}\n", "x" * 10_000])
def test_a_file_of_somebody_else_is_not_taken_for_rows(content: str, unfinished: Unfinished) -> None:
    unfinished.partial.write_text(content)
    with pytest.raises(UserError, match="no file of this command"):
        main(unfinished.arguments)
    assert unfinished.partial.read_text() == content


@pytest.mark.parametrize(
    "row", ["junk\n", "[]\n", '["b.wav", "0.5", null]\n', '["a.wav", "nan", null]\n', "\0\n"]
)
def test_damaged_rows_are_refused(row: str, unfinished: Unfinished) -> None:
    unfinished.leave(unfinished.conditions, row)
    with pytest.raises(UserError, match="is damaged"):
        main(unfinished.arguments)
    assert not unfinished.out.exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_first_line_cut_short_is_written_again(share: float, unfinished: Unfinished) -> None:
    content = unfinished.partial.read_bytes()
    unfinished.partial.write_bytes(content[: int(len(content) * share)])
    assert not unfinished.goes_on()
