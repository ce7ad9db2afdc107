"""How the operations of a network are put for the runtime that an export is made for.

A network is defined once. What a runtime is slow at or lacks is said differently while the graph is
made for it, and the numbers stay the same up to rounding: ``with lowering(row.lowering): ...`` around
freezing and tracing. Layers ask in `antispoof.models.layers.primitives`, scans in `antispoof.scan`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

ScanForm = Literal["reference", "eager", "onnx", "static"]  # of selective scans, see `antispoof.scan`


@dataclass(frozen=True)
class Lowering:
    """What a runtime can do, and so how a network is put for it; the defaults are PyTorch's own.

    Attributes:
        scan: The form that selective scans take (see `antispoof.scan.scan_form`).
        elu: ``native``: any ELU is one operation. ``unit``: only that with alpha 1 is, as in TFLite.
        compare: ``native``: comparisons that give truth values. ``arithmetic``: clamped differences,
            where comparisons would fall out of the fast kernels and cut the graph into pieces.
            ``half``: the same for half precision, which the one factor of ``arithmetic`` exceeds.
        time_tiles: Into how many overlapping tiles of time the first, widest blocks of a waveform
            encoder are cut. The tiles' results are those of the whole, with less memory at once. A module
            that cuts says so with ``cuts_time = True``; all others are computed whole.
        longest_axis: How many elements an axis of a tensor may have, if there is a limit: a longer
            waveform is folded before it is cut, and there are as many tiles as keep to it.
    """

    scan: ScanForm = "eager"
    elu: Literal["native", "unit"] = "native"
    compare: Literal["native", "arithmetic", "half"] = "native"
    time_tiles: int = 1
    longest_axis: int | None = None

    def __post_init__(self) -> None:
        if self.time_tiles < 1:
            raise ValueError(f"time_tiles must be at least 1, not {self.time_tiles}")


PYTORCH = Lowering()
# Apple's Neural Engine: half precision, no axis beyond 16,384, and nothing that picks elements by value.
NEURAL_ENGINE = Lowering(scan="static", compare="half", longest_axis=16_384)
_current: ContextVar[Lowering] = ContextVar("lowering", default=PYTORCH)


@contextmanager
def lowering(how: Lowering) -> Iterator[None]:
    """Makes ``how`` what networks are frozen, run and traced by inside the ``with`` block."""
    token = _current.set(how)
    try:
        yield
    finally:
        _current.reset(token)


def current_lowering() -> Lowering:
    """Returns the lowering in force."""
    return _current.get()
