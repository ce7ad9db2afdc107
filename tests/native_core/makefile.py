"""The native core, built by its own Makefile."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runtimes.native import library as native


def make(target: str, folder: Path) -> Path:
    """Makes one target in a folder and returns where it is."""
    command = ["make", "-s", "-C", str(native.SOURCES), f"BUILD={folder}", str(folder / target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / target
