"""Chooses the few values that stand for the many weights of a layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 1024  # of the weights' histogram
ROUNDS = 100  # of Lloyd's algorithm, which settles in about 30
SETTLED = 1e-7  # of the largest weight: centres that move less have arrived


def palette_of(weights: np.ndarray, bits: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Returns ``2 ** bits`` values, and for each weight the number of its value.

    By Lloyd's algorithm ("Least squares quantization in PCM", 1982), which begins the same way each time, so
    that the same weights always give the same palette. A weight of zero keeps its value: what was pruned
    stays so.

    Args:
        weights: Of any shape.
        bits: Up to 8.
    """
    flat = weights.astype(np.float64).ravel()
    values = np.unique(flat)
    if len(values) > 2**bits:
        values = _settled(flat, 2**bits)
    if not flat.all():
        values[np.abs(values).argmin()] = 0.0
    # A palette is full by definition, even where a layer has fewer values.
    full = np.pad(values, (0, 2**bits - len(values)), mode="edge")
    return full, _nearest(flat, values).astype(np.uint8)


def _settled(flat: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Returns the centres of ``count`` groups of values."""
    centres = _spread(flat, count)
    for _ in range(ROUNDS):
        nearest = _nearest(flat, centres)
        sizes = np.bincount(nearest, minlength=len(centres))
        sums = np.bincount(nearest, flat, minlength=len(centres))
        moved = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres)
        arrived = np.abs(moved - centres).max() <= SETTLED * np.abs(flat).max()
        centres = np.sort(moved)
        if arrived:
            break
    return centres


def _spread(flat: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Returns the centres to begin with, as dense as the cube root of the values' own density.

    That is the best for many centres (Panter and Dite, "Quantization distortion in pulse-count modulation",
    1951). Quantiles would leave the few large weights to centres far away, which never move there.
    """
    counts, edges = np.histogram(flat, bins=BINS)
    below = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    return np.interp((np.arange(count) + 0.5) / count * below[-1], below, edges)


def _nearest(flat: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the number of the nearest of some ascending centres."""
    borders = (centres[1:] + centres[:-1]) / 2
    return np.searchsorted(borders, flat).astype(np.int64)
