"""The curves of a run: a picture, and a log for TensorBoard; each only where its library is installed."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from antispoof.errors import UserError
from antispoof.outputs import write_whole
from train.loop import Progress


class Journal:
    """Keeps what is found out while a run goes on."""

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        """Checks that what is wanted can be had.

        Raises:
            UserError: TensorBoard is wanted and not installed.
        """
        self._folder, self._log = folder, None
        self._writer = _summary_writer() if tensorboard else None

    def open(self, step: int) -> None:
        """Begins the log; what an earlier, stopped run logged beyond ``step`` is hidden."""
        if self._writer is not None:  # which hides what was logged at the step that it is told, too
            self._log = self._writer(self._folder / "tensorboard", purge_step=step + 1)

    def add(self, row: Progress) -> None:
        """Logs a validation."""
        if self._log is not None:
            for name, value in row._asdict().items():
                if name != "step":
                    self._log.add_scalar(name, value, row.step)
            self._log.flush()

    def close(self, history: Sequence[Progress]) -> None:
        """Ends the log and draws the curves."""
        if self._log is not None:
            self._log.close()
        draw_curves(history, self._folder / "curves.png")


def _summary_writer() -> Any:
    try:
        with warnings.catch_warnings():  # its own dependencies are behind the times
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs the package: pip install 'antispoof[train]'") from None
    return SummaryWriter


def draw_curves(history: Sequence[Progress], path: Path) -> None:
    """Draws loss and dev EER over the steps as PNG; only says so where matplotlib is missing."""
    figure = _figure()
    if figure is None:
        return
    left = figure.subplots()
    right = left.twinx()
    steps = [row.step for row in history]
    # The larger dot shows where both lie on one another, as they do where there is but one.
    left.plot(steps, [row.loss for row in history], "o-", color="tab:blue", label="training loss")
    right.plot(steps, [100 * row.dev_eer for row in history], ".-", color="tab:red", label="dev EER")
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    right.set(ylabel="dev EER, %", ylim=(0, None))
    figure.legend(loc="outside upper right", ncols=2)
    _save(figure, path)


def draw_conditions(eers: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Draws, for each model, its EER on clean and on compressed speech side by side, as PNG."""
    figure = _figure()
    if figure is None:
        return
    axes = figure.subplots()
    for offset, (name, index) in enumerate((("clean", 0), ("compressed", 1))):
        places = [position + 0.4 * offset for position in range(len(eers))]
        bars = axes.bar(places, [100 * pair[index] for pair in eers.values()], 0.38, label=name)
        axes.bar_label(bars, fmt="%.1f")
    axes.set_xticks([position + 0.2 for position in range(len(eers))], list(eers))
    axes.set_ylabel("EER, %")
    axes.legend()
    _save(figure, path)


def _figure() -> Any:
    """Returns an empty figure that needs no screen; None, and a line on stderr, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no curves drawn: pip install 'antispoof[train]' brings matplotlib", file=sys.stderr)
        return None
    return Figure(figsize=(7, 4), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    write_whole(path, drawn.getvalue())
