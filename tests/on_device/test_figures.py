"""Figures are of the blocks that a device ran cool and steadily, and of no others."""

from __future__ import annotations

from benchmarks.devices.runs import Answer, Block, figures, is_steady


def block(milliseconds: float, heat: int | None = 0) -> Block:
    return Block(Answer("r", "l", (0.0,), 1.0, 2.0, (milliseconds,) * 10, 2048), heat, heat)


def test_blocks_are_steady_when_two_cool_ones_agree() -> None:
    assert not is_steady([block(10)])
    assert not is_steady([block(12), block(10)])
    assert is_steady([block(12), block(10), block(10.2)])
    assert not is_steady([block(10, heat=2), block(10)])
    assert is_steady([block(10, heat=None), block(10, heat=None)])  # a device that does not tell
    assert is_steady([block(0), block(0)])  # a clock too coarse for the model


def test_figures_are_of_the_steady_blocks_alone() -> None:
    row = figures([block(20), block(10), block(10)])
    assert row["steady"]
    assert row["ms"]["p50"] == row["ms"]["least"] == 10
    assert row["blocks"] == {"run": 3, "hot": 0, "used": 2}
    assert row["times_ms"] == [10.0] * 20
    row = figures([block(20, heat=1), block(10), block(30)])
    assert not row["steady"]
    assert row["blocks"] == {"run": 3, "hot": 1, "used": 2}
    assert row["peak_rss_mib"] == 2
