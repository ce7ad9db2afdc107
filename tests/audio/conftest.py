"""What tests of audio share: files of any bytes and name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.audio.sound_files")


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes bytes under a name, each time in another folder, and returns the path."""
    numbers = itertools.count()

    def write(data: bytes, name: str = "clip") -> Path:
        path = tmp_path / str(next(numbers)) / name
        path.parent.mkdir()
        path.write_bytes(data)
        return path

    return write
