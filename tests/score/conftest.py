"""What tests of scoring share: a folder of recordings and the table that the command makes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from antispoof.errors import EXIT_DONE
from runtimes.score import main
from tests.score.tables import NAMES, write


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four recordings, one of them longer than a clip, and what is not one."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(NAMES):
        write(folder / name, seed, seconds=5.0 if seed == 1 else 1.0)
    (folder / "notes.txt").write_text("no audio")
    shutil.copy(folder / "a.wav", folder / "._a.wav")
    write(folder / ".hidden" / "a.wav", 9)
    return folder


@pytest.fixture(scope="session")
def scored(exported_model: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table of that folder."""
    out = tmp_path_factory.mktemp("scored") / "scores.tsv"
    assert main([str(exported_model), str(clips), "--out", str(out)]) == EXIT_DONE
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return out.read_text(encoding="utf-8")
