"""The command that scores recordings: its table, what it refuses, and how it survives being stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from antispoof.audio import SAMPLE_RATE, fit_length, load_audio
from antispoof.checkpoint import save_checkpoint
from antispoof.data import read_protocol
from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, EXIT_INTERRUPTED, CheckFailed, UserError
from antispoof.manifest import Calibration, Manifest, Threshold, manifest_path, read_manifest
from antispoof.pretrained import load_pretrained
from antispoof.score_files import read_scores
from antispoof.speechlike import speech_like
from benchmarks import accuracy
from export import to_onnx
from runtimes import load
from runtimes.clips import find_clips
from runtimes.score import main
from runtimes.score_table import conditions_of

COMMAND = Path(__file__).resolve().parents[1] / "runtimes" / "score.py"
NAMES = ["a.wav", "b/c.FLAC", "b/d e.wav", "é.ogg"]  # in the order of a folder's table
BROKEN = {
    "cut.wav": "cut short",
    "empty.wav": "is empty",
    "page.mp3": "not audio",
    "silent.flac": "is silent",
}
# The published scores were computed by PyTorch with other kernels and hardware and have six digits; an
# exported file may differ from PyTorch by 1e-4 (the format's own tolerance).
PUBLISHED_TOLERANCE = 1e-4
DEADLINE = 60  # seconds a process may take to get somewhere, on a machine busy with other work
Capture = pytest.CaptureFixture[str]


def write(path: Path, seed: int, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speech_like(seed, int(seconds * SAMPLE_RATE)), SAMPLE_RATE)
    return path


def rows_of(text: str) -> list[list[str]]:
    assert text.endswith("\n")
    return [line.split("\t") for line in text[:-1].split("\n")]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four recordings, one of them longer than a clip, and what is not one."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(NAMES):
        write(folder / name, seed, seconds=5.0 if seed == 1 else 1.0)
    (folder / "notes.txt").write_text("no audio")
    shutil.copy(folder / "a.wav", folder / "._a.wav")
    write(folder / ".hidden" / "a.wav", 9)
    return folder


@pytest.fixture(scope="module")
def scored(exported_model: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table of that folder."""
    out = tmp_path_factory.mktemp("scored") / "scores.tsv"
    assert main([str(exported_model), str(clips), "--out", str(out)]) == EXIT_DONE
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return out.read_text(encoding="utf-8")


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


@pytest.fixture
def with_manifest(exported_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Gives a copy of the model whose manifest says more."""

    def copy(**facts: object) -> Path:
        path = Path(shutil.copy(exported_model, tmp_path / "model.onnx"))
        changed: Manifest = replace(read_manifest(exported_model), **facts)  # type: ignore[arg-type]
        changed = replace(changed, file=replace(changed.file, name=path.name)) if changed.file else changed
        manifest_path(path).write_text(changed.to_json(), encoding="utf-8")
        return path

    return copy


def test_the_table_holds_the_models_scores_to_the_last_bit(
    exported_model: Path, clips: Path, scored: str
) -> None:
    header, *rows = rows_of(scored)
    assert header == ["path", "score"]
    assert [name for name, _ in rows] == NAMES
    runtime = load(exported_model)
    for name, score in rows:
        expected = runtime.score(fit_length(load_audio(clips / name))[None])[0]
        assert np.float32(score) == expected
        assert score == str(expected)
    assert len({score for _, score in rows}) == len(NAMES)


@pytest.mark.parametrize("workers", ["2", "5"])
def test_workers_change_neither_scores_nor_order(
    workers: str, exported_model: Path, clips: Path, scored: str, capsys: Capture
) -> None:
    assert main([str(exported_model), str(clips), "--workers", workers]) == EXIT_DONE
    assert capsys.readouterr() == (scored, "")


def test_files_are_called_by_their_name_and_keep_their_order(
    exported_model: Path, clips: Path, scored: str, capsys: Capture
) -> None:
    arguments = [str(exported_model), str(clips / "é.ogg"), "--out", "-", str(clips / "a.wav")]
    assert main(arguments) == EXIT_DONE
    lines = scored.splitlines()
    assert capsys.readouterr().out.splitlines() == [lines[0], lines[4], lines[1]]


def test_a_checkpoint_scores_like_its_export(
    exported_model: Path, clips: Path, scored: str, tmp_path: Path, capsys: Capture
) -> None:
    before = torch.get_num_threads()
    save_checkpoint(load_pretrained("random", "aasist-l").detector, tmp_path / "model.safetensors")
    try:
        assert main([str(tmp_path / "model.safetensors"), str(clips), "--workers", "2"]) == EXIT_DONE
    finally:
        torch.set_num_threads(before)
    rows, expected = rows_of(capsys.readouterr().out), rows_of(scored)
    assert [row[0] for row in rows] == [row[0] for row in expected]
    for row, other in zip(rows[1:], expected[1:], strict=True):
        assert float(row[1]) == pytest.approx(float(other[1]), abs=PUBLISHED_TOLERANCE)


def test_damage_behind_what_the_model_hears_goes_unnoticed(
    exported_model: Path, tmp_path: Path, capsys: Capture
) -> None:
    whole = write(tmp_path / "whole.flac", 3, seconds=12.0)
    content = whole.read_bytes()
    (tmp_path / "tail.flac").write_bytes(content[: len(content) * 3 // 4])
    assert main([str(exported_model), str(tmp_path)]) == EXIT_DONE
    _, tail, head = rows_of(capsys.readouterr().out)
    assert tail[1] == head[1]


def test_a_calibration_adds_llr_and_a_decision_at_zero(
    with_manifest: Callable[..., Path], clips: Path, scored: str, tmp_path: Path
) -> None:
    scores = [float(row[1]) for row in rows_of(scored)[1:]]
    middle = float(np.mean(scores))
    model = with_manifest(calibration=Calibration(100.0, -100.0 * middle, "these clips"))
    out = tmp_path / "scores.tsv"
    assert main([str(model), str(clips), "--out", str(out)]) == EXIT_DONE
    header, *rows = rows_of(out.read_text(encoding="utf-8"))
    assert header == ["path", "score", "llr", "decision"]
    for score, row in zip(scores, rows, strict=True):
        assert float(row[2]) == pytest.approx(100 * (score - middle), rel=1e-8)  # nine digits
        assert row[3] == ("bonafide" if score >= middle else "spoof")
    assert len({row[3] for row in rows}) == 2
    llrs = read_scores(out).llrs
    assert llrs is not None
    assert llrs.tolist() == [float(row[2]) for row in rows]


def test_decisions_are_made_at_the_threshold_asked_for(
    with_manifest: Callable[..., Path], clips: Path, scored: str, capsys: Capture
) -> None:
    scores = [float(row[1]) for row in rows_of(scored)[1:]]
    points = (Threshold("equal", sorted(scores)[1], "dev"), Threshold("strict", 1e6, "dev"))
    model = with_manifest(thresholds=points)
    assert main([str(model), str(clips)]) == EXIT_DONE
    header, *rows = rows_of(capsys.readouterr().out)
    assert header == ["path", "score", "decision"]
    # A score equal to the threshold is bona fide.
    assert [row[2] for row in rows] == ["bonafide" if s >= points[0].score else "spoof" for s in scores]
    assert [row[2] for row in rows].count("spoof") == 1
    assert main([str(model), str(clips / "a.wav"), "--threshold", "strict"]) == EXIT_DONE
    assert capsys.readouterr().out.endswith("\tspoof\n")
    with pytest.raises(UserError, match="no threshold 'lax'; the model has equal, strict"):
        main([str(model), str(clips), "--threshold", "lax"])


def test_a_protocol_gives_names_and_order_to_the_table(
    exported_model: Path, clips: Path, scored: str, tmp_path: Path, capsys: Capture
) -> None:
    protocol = tmp_path / "list.tsv"
    lines = ["path\tlabel\tsplit", "é.ogg\tspoof\tdev", "b/c.FLAC\tbonafide\ttrain", "a.wav\tbonafide\tdev"]
    protocol.write_text("\n".join([*lines, "gone.wav\tspoof\tdev"]) + "\n")
    arguments = [str(exported_model), "--protocol", str(protocol), str(clips), "--split", "dev"]
    assert main(arguments) == EXIT_CHECK_FAILED
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [scored.splitlines()[i] for i in (0, 4, 1)]
    assert "'gone.wav': no audio for gone.wav" in shown.err


def test_a_protocol_of_ids_finds_their_files_and_suits_the_measuring_command(
    exported_model: Path, clips: Path, tmp_path: Path, capsys: Capture
) -> None:
    for name, utterance in (("a.wav", "LA_E_2.wav"), ("b/c.FLAC", "LA_E_1.flac")):
        shutil.copy(clips / name, tmp_path / utterance)
    protocol = tmp_path / "trl.txt"
    protocol.write_text("S LA_E_2 - A07 spoof\nS LA_E_1 - - bonafide\n")
    out = tmp_path / "scores.tsv"
    assert (
        main([str(exported_model), str(tmp_path), "--protocol", str(protocol), "--out", str(out)])
        == EXIT_DONE
    )
    assert [row[0] for row in rows_of(out.read_text())] == ["path", "LA_E_2", "LA_E_1"]
    matched = accuracy.load(out, protocol)
    assert (len(matched.trials), matched.unscored, matched.unlisted) == (2, (), ())


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


def test_a_folder_is_walked_in_one_order_and_links_are_followed(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(clips, target_is_directory=True)
    assert [clip.name for clip in find_clips([tmp_path])] == [f"link/{name}" for name in NAMES]
    assert [clip.name for clip in find_clips([clips / "b", clips / "a.wav"])] == [
        "c.FLAC",
        "d e.wav",
        "a.wav",
    ]


def loop(folder: Path) -> list[Path]:
    (folder / "below").mkdir()
    write(folder / "a.wav", 0)
    (folder / "below" / "up").symlink_to(folder, target_is_directory=True)
    return [folder]


def itself(folder: Path) -> list[Path]:
    (folder / "round").symlink_to(folder / "round")
    return [folder]


def no_audio(folder: Path) -> list[Path]:
    (folder / "notes.txt").write_text("no audio")
    return [folder]


def same_name(folder: Path) -> list[Path]:
    return [write(folder / "x" / "a.wav", 0).parent, write(folder / "y" / "a.wav", 1)]


def twice(folder: Path) -> list[Path]:
    return [write(folder / "a.wav", 0)] * 2


def locked(folder: Path) -> list[Path]:
    if os.geteuid() == 0:
        pytest.skip("root may read every folder")
    (folder / "locked").mkdir(mode=0)
    return [folder]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (loop, "links back to a folder above"),
        (itself, "cannot read .*round"),
        (no_audio, "no audio in this folder"),
        (same_name, r"x/a\.wav and .*y/a\.wav would both be called 'a\.wav'"),
        (twice, "would both be called"),
        (locked, "cannot read .*locked"),
        (lambda folder: [folder / "gone"], "cannot read .*gone: No such file"),
        (lambda folder: [folder / "nul\0.wav"], "cannot read .*null"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_paths_that_cannot_be_listed(
    paths: Callable[[Path], list[Path]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        find_clips(paths(tmp_path))


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


def test_the_published_scores_come_out_of_the_command(
    shared: Path, speech_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    weights = str(shared / "weights" / "AASIST-L.pth")
    export = ["--checkpoint", weights, "--out", str(tmp_path), "--verify-audio", str(speech_folder)]
    assert to_onnx.main(export) == EXIT_DONE
    out, protocol = tmp_path / "scores.tsv", shared / "audio" / "manifest.tsv"
    split = ["--protocol", str(protocol), "--split", "dev"]
    model, folder = str(tmp_path / "aasist-l.onnx"), str(shared / "audio")
    assert main([model, folder, *split, "--out", str(out), "--workers", "2"]) == EXIT_DONE

    _, *lines = (shared / "oracles" / "aasist-scores.dev.tsv").read_text().splitlines()
    published = {line.split("\t")[0]: float(line.split("\t")[4]) for line in lines}
    scored = read_scores(out)
    assert scored.names == [trial.name for trial in read_protocol(protocol, split="dev")]
    assert len(scored.names) == len(published) == 100
    expected = np.array([published[name] for name in scored.names])
    np.testing.assert_allclose(scored.scores, expected, rtol=0, atol=PUBLISHED_TOLERANCE)

    capsys.readouterr()
    assert accuracy.main([str(out), *split, "--bootstrap", "0"]) == EXIT_DONE
    assert re.search(r"^EER +0\.0+%$", capsys.readouterr().out, re.MULTILINE)
