"""A voice to train on, and its spoof."""

from __future__ import annotations

import numpy as np

from antispoof.channel import band_limit

RATE = 16_000


def voice(generator: np.random.Generator, seconds: float, smeared: bool) -> np.ndarray:
    """Returns pulses through a resonance; the spoofs lack the upper half of the band."""
    pulses = np.zeros(int(RATE * seconds))
    pulses[:: generator.integers(90, 160)] = 1
    response = np.exp(-np.arange(200) / 30) * np.cos(np.arange(200) * generator.uniform(0.2, 0.4))
    wave = np.convolve(pulses, response)[: len(pulses)] + 0.05 * generator.standard_normal(len(pulses))
    wave = band_limit(wave.astype(np.float32), high_hz=3_000) if smeared else wave
    return (0.2 * wave / np.abs(wave).max()).astype(np.float32)
