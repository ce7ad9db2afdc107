"""The memory of scores: what is computed again, what is not, and what damage does."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from antispoof.errors import UserError
from benchmarks.score_memory import remembered_scores

NAMES = ["a", "b", "c", "d", "e"]
SCORES = np.float32([0.1, -2.5, 1e-30, 7.0, 1 / 3])


class Scorer:
    """Gives the scores above, notes what it was asked for, and stops as if interrupted."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.asked: list[int] = []
        self._stop_before = stop_before

    def __call__(self, places: Sequence[int]) -> np.ndarray:
        """Returns the scores of clips (places,)."""
        if self._stop_before in places:
            raise KeyboardInterrupt
        self.asked += places
        return SCORES[list(places)]


@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_scores_come_back_to_the_bit_and_are_computed_once(tmp_path: Path, at_once: int) -> None:
    scorer = Scorer()
    for _ in range(2):
        scores = remembered_scores(tmp_path, "key", NAMES, scorer, at_once=at_once)
        assert np.array_equal(scores.astype(np.float32), SCORES)
    assert scorer.asked == [0, 1, 2, 3, 4]
    remembered_scores(tmp_path, "other key", NAMES, scorer, at_once=at_once)
    remembered_scores(None, "key", NAMES, scorer, at_once=at_once)
    assert len(scorer.asked) == 15


def test_scores_of_another_version_of_a_runtime_are_not_taken_for_this_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer()
    remembered_scores(tmp_path, "key", NAMES, scorer)
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "9" if name == "onnxruntime" else version(name)
    )
    for _ in range(2):
        remembered_scores(tmp_path, "key", NAMES, scorer)
    assert len(scorer.asked) == 2 * len(NAMES)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    remembered_scores(None, "key", NAMES, Scorer())
    assert not list(tmp_path.rglob("*"))


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        remembered_scores(tmp_path, "key", NAMES, Scorer(stop_before=3))
    scorer = Scorer()
    assert np.array_equal(remembered_scores(tmp_path, "key", NAMES, scorer).astype(np.float32), SCORES)
    assert scorer.asked == [3, 4]


def test_a_line_that_was_cut_off_never_counts(tmp_path: Path) -> None:
    remembered_scores(tmp_path, "key", NAMES, Scorer())
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last + 1):
        file.write_bytes(whole[:-cut])
        # Interrupted again, before that clip is scored.
        with pytest.raises(KeyboardInterrupt):
            remembered_scores(tmp_path, "key", NAMES, Scorer(stop_before=4))
        scorer = Scorer()
        assert np.array_equal(remembered_scores(tmp_path, "key", NAMES, scorer).astype(np.float32), SCORES)
        assert scorer.asked == [4]
    assert file.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"junk\n", b"a\tx\n", b"a\tnan\n", b"\xff\xfe\t1\n", b"a\t1\n\nb\t2\n"])
def test_a_damaged_memory_is_refused(tmp_path: Path, damage: bytes) -> None:
    remembered_scores(tmp_path, "key", NAMES, Scorer())
    [file] = tmp_path.iterdir()
    file.write_bytes(damage)
    with pytest.raises(UserError, match="delete it"):
        remembered_scores(tmp_path, "key", NAMES, Scorer())
    assert file.read_bytes() == damage


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot remember scores in"):
        remembered_scores(tmp_path / "file" / "memory", "key", NAMES, Scorer())
