"""One command for every format: a table of what came of it, and a failure that takes nothing with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antispoof.errors import UserError
from antispoof.manifest import manifest_path
from antispoof.manifest_reader import read_manifest
from antispoof.models import model_names, small_config
from antispoof.pretrained import DEFAULT_MODEL
from export import all as export_all
from export import onnx_file, tflite_file
from export.all import HEADER, Row, main, table
from runtimes.graphs import read_graph

Capture = pytest.CaptureFixture[str]


def small_flags(name: str, out: Path) -> list[str]:
    flags = ["--model", name, "--checkpoint", "random", "--out", str(out)]
    for key, value in small_config(name).items():
        flags += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return flags


def test_a_failure_is_a_row_that_says_why_and_the_rest_is_written(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no lowering\nof this operation")

    monkeypatch.setattr(tflite_file, "convert", fail)
    flags = [*small_flags("bimamba-sinc", tmp_path), "--format", "tflite", "onnx"]
    assert main([*flags, "--json", str(tmp_path / "rows.json")]) == 1
    shown = capsys.readouterr()
    header, failed, written = shown.out.splitlines()
    assert header.split() == " ".join(HEADER).split()
    assert failed.startswith("bimamba-sinc  tflite  failed after ")
    assert failed.endswith("RuntimeError: no lowering of this operation")
    assert "Traceback" in shown.err  # a converter's bug is not swallowed
    path = tmp_path / "bimamba-sinc.onnx"
    manifest = read_manifest(path)
    assert manifest.parity is not None
    lost, kept = json.loads((tmp_path / "rows.json").read_text())
    assert (lost["failure"], lost["bytes"]) == ("RuntimeError: no lowering of this operation", 0)
    assert (kept["failure"], kept["bytes"], kept["partitions"]) == ("", path.stat().st_size, 1)
    assert kept["max_difference"] == manifest.parity.max_difference
    assert kept["operations"] == len(read_graph(path).nodes)
    assert f"{kept['operations']}  " in written
    assert f"{manifest.parity.max_difference:.1e}" in written
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        ["rows.json", path.name, manifest_path(path).name]
    )


def test_a_format_that_scores_otherwise_is_a_row_and_leaves_nothing(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = onnx_file.convert

    def convert_wrongly(*args: object, **kwargs: object) -> object:
        model = convert(*args, **kwargs)  # type: ignore[arg-type]
        last = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
        last.output[0] = "almost"
        end = model.graph.node.add(op_type="Neg", input=["almost"], output=[model.graph.output[0].name])
        assert end.op_type == "Neg"
        return model

    monkeypatch.setattr(onnx_file, "convert", convert_wrongly)
    assert main([*small_flags("bimamba-sinc", tmp_path / "out"), "--format", "onnx"]) == 1
    shown = capsys.readouterr()
    assert "does not score as PyTorch does" in shown.out
    assert "Traceback" not in shown.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--checkpoint", "no.pth"], "no such checkpoint"),
        (["--model", "aasist", "aasist-l", "--name", "one"], "--name is for one model"),
        (["--json", "mine.json"], "--force replaces it"),
        (["--json", "taken", "--force"], "is a folder"),
        (["--out", "taken"], rf"{DEFAULT_MODEL}\.tflite exists; --force replaces it"),
        (["--out", "mine.onnx"], "mine.onnx: --out takes the folder, not the file"),
        (["--set", "clip_samples=long"], "clip_samples"),
        (["--json", "no/such/folder.json"], "no folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_exported(
    flags: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export_all, "EXPORTERS", dict.fromkeys(export_all.EXPORTERS))  # which none may call
    Path("mine.json").write_text("[]")
    Path("taken").mkdir()
    Path(f"taken/{DEFAULT_MODEL}.tflite").write_text("mine")
    with pytest.raises(UserError, match=hint):
        main(flags)
    assert sorted(path.name for path in Path().iterdir()) == ["mine.json", "taken"]


def test_columns_line_up_whatever_a_failure_says() -> None:
    rows = [
        Row("aasist-l", "onnx", 3.21, "out/x", 2048, 314, 1, 1.2e-7),
        Row("se-mamba", "coreml", 12.0, failure="a reason " * 20),
    ]
    header, good, bad = table(rows).splitlines()
    assert good.index("2.0 KiB") + len("2.0 KiB") == header.index("size") + len("size")
    assert good.split()[-4:] == ["1", "1.2e-07", "3.2", "s"]
    assert bad.endswith("a reason")


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_every_model_goes_to_every_format(name: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(small_flags(name, tmp_path)) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[1] for row in rows] == ["onnx", "tflite", "coreml"]
    assert all(float(row[-3]) <= 1e-4 for row in rows)  # the tolerance of every format in float32
