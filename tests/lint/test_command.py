"""The command: budgets that fail, JSON that says what the table says, mistakes told in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from onnx import helper

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import CheckFailed, UserError
from antispoof.speechlike import speech_like
from export.lint import main
from tests.lint.small_files import SAMPLES, save, value

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        (["--max-fallback", "99"], "100.00 % of the multiply-adds are left out, allowed are 99 %"),
        (["--max-partitions", "0"], "1 partitions, allowed are 0"),
        (["--max-fallback", "100", "--max-partitions", "1"], None),
    ],
)
def test_budgets(flags: list[str], wrong: str | None, aasist_like: Path, capsys: Capture) -> None:
    call = [str(aasist_like), "--target", "nnapi", *flags]
    if wrong is None:
        assert main(call) == 0
    else:
        with pytest.raises(CheckFailed, match=wrong):
            main(call)
    assert "partitions" in capsys.readouterr().out  # what was found is shown either way


def test_json_says_what_the_table_says(aasist_like: Path, capsys: Capture) -> None:
    assert main([str(aasist_like), "--target", "ane", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["macs"] == 4 * 129 * (SAMPLES - 128)
    assert (facts["fallback_percent"], facts["clean"], facts["operations"]) == (100, False, 8)
    assert main([str(aasist_like), "--target", "ane"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("problem ", "note ")) for line in lines) == len(facts["findings"])


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["no.onnx"], "no such model file"),
        (["words.txt"], "not a model file"),
        (["weights.pth"], "export it first"),
        (["empty.onnx"], "it has no nodes"),
        (["page.onnx"], "not an ONNX model"),
        (["page.tflite"], "not a TFLite model"),
        (["page.mlpackage"], "not a folder"),
        (["good.onnx", "--target", "gpu"], "choose ane, coreml, nnapi"),
        (["good.onnx", "--max-fallback", "101"], "0 to 100"),
        (["good.onnx", "--max-partitions", "-1"], "0 or more"),
        (["good.onnx", "--audio", "nowhere"], "no such folder"),
        (["two.onnx", "--audio", "."], "one input"),
    ],
)
def test_mistakes_are_one_line(flags: list[str], hint: str, tmp_path: Path, aasist_like: Path) -> None:
    for name in ("words.txt", "weights.pth", "page.onnx", "page.tflite", "page.mlpackage"):
        (tmp_path / name).write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (tmp_path / "empty.onnx").write_bytes(b"")
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    save(tmp_path / "two.onnx", nodes, [value("a", [1, 2]), value("b", [1, 2])], [value("y", [1, 2])])
    good = [helper.make_node("Relu", ["x"], ["y"])]
    save(tmp_path / "good.onnx", good, [value("x", [1, 8000])], [value("y", [1, 8000])])
    soundfile.write(tmp_path / "clip.wav", speech_like(0, SAMPLE_RATE), SAMPLE_RATE)
    where = [str(tmp_path / flag) if "." in flag or flag == "nowhere" else flag for flag in flags]
    with pytest.raises(UserError, match=hint) as error:
        main(where)
    assert "\n" not in str(error.value)
