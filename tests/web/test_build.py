"""What the page runs on is built whole, or what was there before stays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.web.page import WEB, found


@pytest.mark.parametrize(
    ("present", "sentence"),
    [
        ([], "not found: make, clang, wasm-ld. "),
        (["make", "wasm-ld"], "not found: clang. "),
        (["make", "clang", "wasm-ld"], None),  # then it is the packages of npm that are missing
    ],
)
def test_a_build_that_fails_leaves_what_was_there(
    present: list[str], sentence: str | None, tmp_path: Path
) -> None:
    shutil.copy(WEB / "build.mjs", tmp_path)
    vendor, programs = tmp_path / "vendor", tmp_path / "programs"
    for folder in (vendor, programs):
        folder.mkdir()
    (vendor / "versions.json").write_text("{}")
    for name in present:
        (programs / name).symlink_to(found("true"))
    command = [found("node"), str(tmp_path / "build.mjs")]
    done = subprocess.run(
        command, env={"PATH": str(programs)}, capture_output=True, text=True, check=False, timeout=60
    )
    assert [path.name for path in vendor.iterdir()] == ["versions.json"]
    if sentence is None:
        assert done.returncode == 1
    else:
        assert done.returncode == 2
        assert done.stderr.startswith(sentence)
        assert done.stderr.count("\n") == 1
