"""The command without a device: what a dry run prints, and mistakes told before anything is pushed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from antispoof.errors import UserError
from benchmarks import on_device


def test_the_dry_run_prints_every_command(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--app", "Bench.app", "--bundle", "org.example.bench", "--dry-run"]
    assert on_device.main(["ios", str(model), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:5] for line in lines] == [
        ["list", "devices", "--json-output"],
        ["device", "install", "app"],
        ["device", "copy", "to"],
        ["device", "copy", "to"],
        ["device", "process", "launch"],
    ]
    assert lines[-1].endswith("--samples 64600 --threads 1 --runs 50")


@pytest.mark.skipif(shutil.which("xcrun") is not None, reason="there is an Xcode here")
def test_without_xcode_the_phone_side_says_so(model: Path) -> None:
    with pytest.raises(UserError, match="takes a Mac with Xcode"):
        on_device.main(["ios", str(model), "--app", "Bench.app", "--bundle", "org.example.bench"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--in-app", "--runner", __file__], "--in-app needs no --runner"),
        (["--push", "missing"], "no such file to push"),
        (["--runner", "missing"], "no such file to push"),
        (["--runner", __file__, "--cores", "fast"], "--cores takes"),
        (["--runner", __file__, "--runs", "0"], "at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_pushed(model: Path, more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        on_device.main(["android", str(model), *more])


def test_a_format_without_a_runner_is_told_before_anything_is_pushed(tmp_path: Path) -> None:
    file = tmp_path / "a.tflite"
    file.write_bytes(b"TFL3")
    with pytest.raises(UserError, match="--runner names a program for tflite"):
        on_device.main(["android", str(file)])
