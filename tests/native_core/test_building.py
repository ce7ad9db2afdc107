"""Building the core: every target is named, it needs no library, and a missing compiler gets a sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtimes.native import library as native
from tests.native_core.makefile import make


def test_all_targets_names_every_target_and_fails_for_none(tmp_path: Path) -> None:
    command = [
        "make",
        "-s",
        "-C",
        str(native.SOURCES),
        f"BUILD={tmp_path}",
        "CLANG=no-such-clang",
        "all-targets",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 8
    assert "wasm32/spoof_core.wasm" in done.stdout
    assert "not built: no-such-clang: " in done.stdout
    assert not [row for row in done.stdout.splitlines() if row.endswith("not built: ")], "without a reason"


def test_without_a_compiler_there_is_a_sentence(tmp_path: Path) -> None:
    program = "from runtimes.native_core import Rules, Judge; Judge(Rules())"
    environment = {**os.environ, "CC": "no-such-cc", "ANTISPOOF_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert "UserError: streaming needs a C compiler and there is no 'no-such-cc'" in done.stderr


def test_the_core_needs_no_library(tmp_path: Path) -> None:
    if not shutil.which("nm"):
        pytest.skip("needs nm")
    objects = make("libspoof_core.so", tmp_path)
    listed = subprocess.run(["nm", "-D", "-u", objects], capture_output=True, text=True, check=True).stdout
    used = {row.split()[-1].split("@")[0] for row in listed.splitlines() if " U " in row}
    assert used <= {"memcpy", "memmove", "memset"}
