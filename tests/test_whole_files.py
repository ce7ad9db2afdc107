"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from antispoof.errors import UserError
from antispoof.whole_files import put_in_place, write_whole


def test_text_and_bytes_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, expected in (("früher\r\n", "früher\r\n".encode()), (b"\x00\xff", b"\x00\xff")):
        write_whole(path, content)
        assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whatever_goes_wrong_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail() -> None:
        with put_in_place(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*nowhere/file: No such file or directory"):
        write_whole(tmp_path / "nowhere" / "file", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_whole(tmp_path / "folder", "")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
