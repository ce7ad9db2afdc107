"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from antispoof.errors import UserError
from antispoof.outputs import write_whole


def test_text_and_bytes_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, expected in (("früher\r\n", "früher\r\n".encode()), (b"\x00\xff", b"\x00\xff")):
        write_whole(path, content)
        assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_whatever_goes_wrong_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail(partial: Path, target: Path) -> None:
        assert partial.read_text() == "new"
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((UserError, KeyboardInterrupt)):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, reason in (
        ("nowhere/file", "No such file or directory"),
        ("file/below", "Not a directory"),
        ("folder", "Is a directory"),
        ("x" * 250, "File name too long"),
    ):
        with pytest.raises(UserError, match=f"cannot write .*{path}: {reason}"):
            write_whole(tmp_path / path, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
