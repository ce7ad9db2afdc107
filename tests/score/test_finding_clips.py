"""Which recordings there are under the paths given, in which order, and paths that cannot be listed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from antispoof.errors import UserError
from runtimes.clips import find_clips
from tests.score.tables import NAMES, write


def test_a_folder_is_walked_in_one_order_and_links_are_followed(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(clips, target_is_directory=True)
    assert [clip.name for clip in find_clips([tmp_path])] == [f"link/{name}" for name in NAMES]
    assert [clip.name for clip in find_clips([clips / "b", clips / "a.wav"])] == [
        "c.FLAC",
        "d e.wav",
        "a.wav",
    ]


def loop(folder: Path) -> list[Path]:
    (folder / "below").mkdir()
    write(folder / "a.wav", 0)
    (folder / "below" / "up").symlink_to(folder, target_is_directory=True)
    return [folder]


def itself(folder: Path) -> list[Path]:
    (folder / "round").symlink_to(folder / "round")
    return [folder]


def no_audio(folder: Path) -> list[Path]:
    (folder / "notes.txt").write_text("no audio")
    return [folder]


def same_name(folder: Path) -> list[Path]:
    return [write(folder / "x" / "a.wav", 0).parent, write(folder / "y" / "a.wav", 1)]


def twice(folder: Path) -> list[Path]:
    return [write(folder / "a.wav", 0)] * 2


def locked(folder: Path) -> list[Path]:
    if os.geteuid() == 0:
        pytest.skip("root may read every folder")
    (folder / "locked").mkdir(mode=0)
    return [folder]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (loop, "links back to a folder above"),
        (itself, "cannot read .*round"),
        (no_audio, "no audio in this folder"),
        (same_name, r"x/a\.wav and .*y/a\.wav would both be called 'a\.wav'"),
        (twice, "would both be called"),
        (locked, "cannot read .*locked"),
        (lambda folder: [folder / "gone"], "cannot read .*gone: No such file"),
        (lambda folder: [folder / "nul\0.wav"], "cannot read .*null"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_paths_that_cannot_be_listed(
    paths: Callable[[Path], list[Path]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        find_clips(paths(tmp_path))
