"""The table of scores: the model's own, to the last bit, under the right names and in order."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from antispoof.audio import fit_length, load_audio
from antispoof.checkpoint import save_checkpoint
from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE
from antispoof.pretrained import load_pretrained
from antispoof.protocols import read_protocol
from antispoof.score_files import read_scores
from benchmarks import accuracy
from runtimes import load
from runtimes.score import main
from tests.score.tables import NAMES, rows_of, write

# The published scores were computed by PyTorch with other kernels and hardware and have six digits; an
# exported file may differ from PyTorch by 1e-4 (the format's own tolerance).
PUBLISHED_TOLERANCE = 1e-4
Capture = pytest.CaptureFixture[str]


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


def test_the_published_scores_come_out_of_the_command(
    published_model: Path, shared: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, protocol = tmp_path / "scores.tsv", shared / "audio" / "manifest.tsv"
    split = ["--protocol", str(protocol), "--split", "dev"]
    model, folder = str(published_model), str(shared / "audio")
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
