"""Which clips show a network's usual values, and what range of them is worth keeping.

    python quantize/calibration.py clips/manifest.tsv --count 64 > quantize/calibration_clips.txt

The clips are a committed list, taken from a training split alone, so that nobody can calibrate on what is
measured later. Values are counted in a histogram whose bins are the leading bits of float32: it needs no
range beforehand, and counts are whole numbers, so the order of the clips changes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.protocols import BONAFIDE, SPOOF
from antispoof.speechlike import speech_like_batch
from antispoof.text_tables import header_columns, split_fields, text_lines
from runtimes.clips import find_clips, read_heads

CLIPS = Path(__file__).with_name("calibration_clips.txt")
ALL = "all"  # as a list: every file of the folder
GENERATED_CLIPS = 32
LEAST_CLIPS = 4  # of one clip the mean error, which is taken off, is the whole error: any file would pass
# What forbids, or does not clearly allow, to make something that is passed on from a clip.
CLOSED_LICENCES = ("none stated", "not stated", "NC", "ND")

Observer = Literal["minmax", "percentile", "entropy", "mse"]
OBSERVERS: tuple[Observer, ...] = ("minmax", "percentile", "entropy", "mse")
Floats = NDArray[np.float64]

DROPPED_BITS = 15  # of 32: what is left is the sign, the exponent and 8 bits, steps of 0.4 %
BINS = 1 << (32 - DROPPED_BITS)
PERCENTILE = 0.99999  # of the values, that the range keeps
SEARCH = np.geomspace(0.03, 1.0, 20)  # shares of the whole range that a search tries
ENTROPY_BINS = 2048


class Histogram:
    """Counts of float32 values, in bins of 0.4 % width."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Counts the values of an array of any shape."""
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32).ravel() >> DROPPED_BITS
        self.counts += np.bincount(bits.astype(np.int64), minlength=BINS)

    def table(self) -> tuple[Floats, Floats]:
        """Returns the values that occurred (the middle of each bin), ascending, and their shares.

        Raises:
            UserError: Nothing was counted, or a value was not finite.
        """
        filled = np.flatnonzero(self.counts)
        middle = 1 << (DROPPED_BITS - 1)
        values = ((filled.astype(np.uint32) << DROPPED_BITS) | middle).view(np.float32).astype(np.float64)
        if not filled.size or not np.isfinite(values).all():
            raise UserError("calibration met no values, or values that are not finite")
        order = np.argsort(values)
        return values[order], self.counts[filled][order] / self.counts.sum()


@dataclass(frozen=True)
class Grid:
    """The values that integers stand for: ``scale * (integer - zero)``.

    Attributes:
        scale: Size of a step.
        zero: The integer that stands for 0, so that 0 is exact and padding costs nothing.
        low: Smallest integer.
        high: Largest integer.
    """

    scale: float
    zero: int
    low: int
    high: int

    def round(self, values: Floats) -> Floats:
        """Returns the values after quantization and back."""
        return (
            np.clip(np.rint(values / self.scale) + self.zero, self.low, self.high) - self.zero
        ) * self.scale


def grid_of(low: float, high: float, bits: int = 8, signed: bool = False) -> Grid:
    """Returns the grid that spans ``low`` to ``high`` and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        high = 1.0  # a tensor of zeros: any step will do
    steps = 2**bits - 1
    first = -(2 ** (bits - 1)) if signed else 0
    scale = float(np.float32((high - low) / steps))
    return Grid(scale, int(np.clip(round(-low / scale), 0, steps)) + first, first, first + steps)


def widened(grid: Grid, factor: float) -> Grid:
    """Returns the grid of as many integers over ``factor`` times the range."""
    return replace(grid, scale=float(np.float32(grid.scale * factor)))


def observe(
    histogram: Histogram,
    observer: Observer,
    *,
    bits: int = 8,
    signed: bool = False,
    lowest: float = -np.inf,
    through: Callable[[Floats], Floats] = lambda values: values,
) -> Grid:
    """Returns the grid for a tensor.

    Args:
        histogram: Its values.
        observer: ``minmax`` keeps all; ``percentile`` all but one in 100,000; ``entropy`` loses least
            information (Kullback-Leibler, as in TensorRT); ``mse`` has the least mean squared error.
        bits: Of the integers.
        signed: Whether these have a sign.
        lowest: No range begins below this.
        through: The function that follows the tensor; what it does to an error is what counts.
    """
    values, shares = histogram.table()
    values = np.maximum(values, lowest)
    if observer == "minmax":
        return grid_of(values[0], values[-1], bits, signed)
    if observer == "percentile":
        below = np.cumsum(shares)
        low = values[np.searchsorted(below, 1 - PERCENTILE)]
        high = values[min(int(np.searchsorted(below, PERCENTILE)), values.size - 1)]
        return grid_of(float(low), float(high), bits, signed)
    cost = _divergence if observer == "entropy" else _squared_error
    target = through(values)
    lows = SEARCH if values[0] < 0 else SEARCH[-1:]
    highs = SEARCH if values[-1] > 0 else SEARCH[-1:]
    grids = [grid_of(values[0] * a, values[-1] * b, bits, signed) for a in lows for b in highs]
    return min(grids, key=lambda grid: cost(target, through(grid.round(values)), shares))


def _squared_error(target: Floats, rounded: Floats, shares: Floats) -> float:
    return float(shares @ (target - rounded) ** 2)


def _divergence(target: Floats, rounded: Floats, shares: Floats) -> float:
    """Returns how much of the distribution is lost: each integer's share, spread over what it stands for."""
    edges = np.linspace(target[0], target[-1], ENTROPY_BINS + 1)
    bins = np.clip(np.searchsorted(edges, target, side="right") - 1, 0, ENTROPY_BINS - 1)
    true = np.bincount(bins, shares, ENTROPY_BINS)
    filled = true > 0
    _, which = np.unique(rounded, return_inverse=True)
    # A bin belongs to the integer of its last value; each integer's share is spread evenly over its bins.
    owner = np.zeros(ENTROPY_BINS, np.int64)
    owner[bins] = which
    mass = np.bincount(which, shares)
    spread = np.bincount(owner[filled], minlength=mass.size)
    kept = mass[owner[filled]] / np.maximum(spread[owner[filled]], 1)
    return float(true[filled] @ np.log(true[filled] / np.maximum(kept, 1e-12)))


def read_list(path: Path) -> list[str]:
    """Returns the paths in a list of clips, one a line; lines that begin with # are comments.

    Raises:
        UserError: The list cannot be read or is empty.
    """
    paths = [line.strip() for _, line in text_lines(path) if not line.startswith("#")]
    if not paths:
        raise UserError(f"{path} lists no clip")
    return paths


def calibration_clips(clips: str, audio: Path | None, samples: int) -> tuple[np.ndarray, str]:
    """Returns clips ``(clips, samples)`` to calibrate on, and what to call them.

    Args:
        clips: A list of paths below ``audio``, or ``all``.
        audio: A folder; None takes generated signals, which are only good for trying things out.
        samples: Length of a clip.

    Raises:
        UserError: A listed file is missing or cannot be read, or there are too few.
    """
    if audio is None:
        return speech_like_batch(GENERATED_CLIPS, samples), f"{GENERATED_CLIPS} generated speech-like clips"
    if not audio.is_dir():
        raise UserError(f"{audio}: no such folder of audio")
    names = [clip.name for clip in find_clips([audio])] if clips == ALL else sorted(read_list(Path(clips)))
    missing = [name for name in names if not (audio / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} calibration clips are not in {audio}; "
            "--calibration all takes what is there, or name a list of your own"
        )
    if len(set(names)) < LEAST_CLIPS:
        raise UserError(
            f"{len(set(names))} clips are too few: {LEAST_CLIPS} at least, as ranges, the score's mean error "
            "and the check of the result come from them"
        )
    return read_heads(
        [audio / name for name in names], samples
    ), f"{len(names)} clips of {'a folder' if clips == ALL else Path(clips).name}"


def choose_clips(rows: Sequence[dict[str, str]], count: int) -> list[str]:
    """Returns the paths of ``count`` clips of the training split, half of each label, spread over data sets.

    Neither a data set nor a speaker that occurs in another split is taken, nor anything whose licence does
    not allow it. The order within a data set is that of the paths' hashes: as good as chance, and the same
    everywhere.
    """
    others = [row for row in rows if row["split"] != "train"]
    speakers = {row["speaker"] for row in others} - {"-", ""}
    data_sets = {row["dataset"] for row in others}
    free = [
        row
        for row in rows
        if row["split"] == "train"
        and row["speaker"] not in speakers
        and row["dataset"] not in data_sets
        and not any(word in row["licence"] for word in CLOSED_LICENCES)
    ]
    return sorted(
        path
        for label in (BONAFIDE, SPOOF)
        for path in _in_turn([row for row in free if row["label"] == label], count // 2)
    )


def _in_turn(rows: Iterable[dict[str, str]], count: int) -> list[str]:
    """Takes one clip of each data set in turn until there are ``count``."""
    queues: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: hashlib.sha256(row["path"].encode()).hexdigest()):
        queues.setdefault(row["dataset"], []).append(row["path"])
    longest = max(map(len, queues.values()), default=0)
    turns = [
        queue[turn] for turn in range(longest) for _, queue in sorted(queues.items()) if turn < len(queue)
    ]
    return turns[:count]


def read_rows(manifest: Path) -> list[dict[str, str]]:
    """Returns the rows of a tab-separated manifest with a header, by column.

    Raises:
        UserError: It cannot be read, or lacks a column that choosing clips needs.
    """
    lines = [split_fields(line, "\t") for _, line in text_lines(manifest)]
    columns = header_columns(lines[0]) if lines else {}
    missing = {"path", "label", "split", "dataset", "speaker", "licence"} - set(columns)
    if missing:
        raise UserError(f"{manifest} has no column {', '.join(sorted(missing))}")
    return [dict(zip(lines[0], fields, strict=True)) for fields in lines[1:]]


def main(argv: list[str] | None = None) -> int:
    """Prints a list of clips, chosen from a manifest."""
    parser = argparse.ArgumentParser(
        prog="calibration.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="tab-separated, with a header")
    parser.add_argument("--count", type=int, default=64, help="clips to choose (default 64)")
    args = parser.parse_args(argv)
    print("# Calibration clips, all of the training split; chosen by quantize/calibration.py")
    print("\n".join(choose_clips(read_rows(args.manifest), args.count)))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
