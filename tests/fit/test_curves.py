"""Curves of a training, drawn and logged."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antispoof.errors import UserError
from train import curves
from train.curves import Journal, draw_conditions, draw_curves
from train.loop import Progress

HISTORY = [Progress(5, 0.7, 0.4, 1e-3), Progress(10, 0.5, 0.2, 1e-4)]


def test_curves_are_drawn_and_logged(tmp_path: Path) -> None:
    journal = Journal(tmp_path, tensorboard=True)
    journal.open(0)
    for row in HISTORY:
        journal.add(row)
    journal.close(HISTORY)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    assert log.Tags()["scalars"] == ["loss", "dev_eer", "learning_rate"]
    assert [(event.step, round(event.value, 6)) for event in log.Scalars("dev_eer")] == [(5, 0.4), (10, 0.2)]


@pytest.mark.parametrize("history", [HISTORY, HISTORY[:1]])
def test_curves_are_seen_whole(history: list[Progress], monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(curves, "_save", lambda figure, path: figures.append(figure))
    draw_curves(history, Path())
    [figure] = figures
    drawn = io.BytesIO()
    figure.savefig(drawn, format="rgba")
    [legend] = figure.legends
    assert not any(legend.get_window_extent().overlaps(axes.get_tightbbox()) for axes in figure.axes)
    width, height = figure.canvas.get_width_height()
    pixels = np.frombuffer(drawn.getvalue(), np.uint8).reshape(height, width, 4)[::-1]
    left, bottom, right, top = map(round, figure.axes[0].get_window_extent().extents)
    inside = pixels[bottom:top, left:right].astype(int)
    red = (inside[..., 0] - inside[..., 1] > 100).sum()
    blue = (inside[..., 2] - inside[..., 0] > 100).sum()
    assert min(red, blue) > 5


def test_the_log_of_a_resumed_run_is_that_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first, again = (Journal(tmp_path, tensorboard=True) for _ in range(2))
    first.open(0)
    for step in (5, 10, 15):
        first.add(Progress(step, 0.1, 0.0, 1e-4))
    again.open(10)  # saved where it was validated, and stopped behind step 15
    again.add(Progress(15, 0.2, 0.0, 1e-4))
    for journal in (first, again):
        journal.close(HISTORY)
    log = EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    assert [(event.step, round(event.value, 6)) for event in log.Scalars("loss")] == [
        (5, 0.1),
        (10, 0.1),
        (15, 0.2),
    ]


def test_curves_need_no_library_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib.figure", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    journal = Journal(tmp_path, tensorboard=False)
    journal.open(0)
    journal.add(HISTORY[0])
    journal.close(HISTORY)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="--tensorboard needs"):
        Journal(tmp_path, tensorboard=True)


def test_conditions_are_drawn(tmp_path: Path) -> None:
    draw_conditions({"one": (0.05, 0.2), "two": (0.04, 0.1)}, tmp_path / "phases.png")
    assert (tmp_path / "phases.png").stat().st_size > 5_000
