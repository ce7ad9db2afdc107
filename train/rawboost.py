"""RawBoost: what telephone lines, amplifiers and converters do to speech (Tak et al., arXiv 2111.04433).

Three algorithms, with the settings that their authors' program has by default. Powers of the waveform, each
through a filter of random notches, are what a line with a bent characteristic gives (1). Single samples are
off by a share of themselves (2). Stationary noise through such a filter lies over everything (3). `rawboost`
draws one of them, or the first and then the second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
from scipy import fft, signal

from antispoof.audio import SAMPLE_RATE
from antispoof.channel.filters import NYQUIST_HZ

NOTCHES = 5
CENTRES_HZ = (20.0, 8_000.0)
WIDTHS_HZ = (100.0, 1_000.0)
TAPS = (10, 100)  # of each notch's filter
POWERS = 5
WEAKER_DB = (5.0, 20.0)  # than the first power, all higher ones
MOST_HIT = 0.1  # of the samples
HIT_GAIN = 2.0
NOISE_SNR_DB = (10.0, 40.0)

Boost = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def rawboost(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns ``waveform (samples,)`` after one way of boosting, with a peak no higher than its own was."""
    ways = WAYS[int(generator.integers(len(WAYS)))]
    peak = float(np.abs(waveform).max())
    boosted = reduce(lambda x, boost: boost(x, generator), ways, waveform.astype(np.float32))
    highest = float(np.abs(boosted).max())
    return boosted * np.float32(peak / highest) if highest > 0 else boosted


def convolutive(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the sum of the waveform's powers, each through its own notches (algorithm 1).

    The waveform is brought to a peak of one first, so that a quiet one is bent like a loud one.
    """
    peak = float(np.abs(waveform).max()) or 1.0
    x = waveform / peak
    points = fft.next_fast_len(len(x) + NOTCHES * TAPS[1], real=True)
    spectrum = np.zeros(points // 2 + 1, np.complex64)
    power = np.ones_like(x)
    for order in range(POWERS):
        power = power * x
        gain_db = -generator.uniform(*WEAKER_DB) if order else 0.0
        taps = notches(generator) * 10 ** (gain_db / 20)
        response = np.zeros(points, np.float32)
        response[: len(taps)] = taps
        # Linear phase: without its delay, which is another for each power.
        spectrum += fft.rfft(power, points) * fft.rfft(np.roll(response, -(len(taps) // 2)))
    y = fft.irfft(spectrum, points)[: len(x)]
    return ((y - y.mean()) * peak).astype(np.float32)


def impulsive(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the waveform with a few of its samples off by up to twice themselves (algorithm 2)."""
    y = waveform.copy()
    count = int(len(y) * generator.uniform(0, MOST_HIT))
    hit = generator.choice(len(y), count, replace=False)
    strength = generator.uniform(-1, 1, count) * generator.uniform(-1, 1, count)
    y[hit] += (HIT_GAIN * strength * y[hit]).astype(np.float32)
    return y


def stationary(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the waveform under white noise that went through random notches (algorithm 3)."""
    noise = signal.fftconvolve(generator.standard_normal(len(waveform)), notches(generator))[: len(waveform)]
    level = np.linalg.norm(waveform) / 10 ** (generator.uniform(*NOISE_SNR_DB) / 20)
    return (waveform + noise * (level / np.linalg.norm(noise))).astype(np.float32)


WAYS: tuple[tuple[Boost, ...], ...] = (
    (convolutive,),
    (impulsive,),
    (stationary,),
    (convolutive, impulsive),
)


def notches(generator: np.random.Generator) -> np.ndarray:
    """Returns an FIR filter ``(taps,)`` of random notches, whose highest gain is one."""
    taps = np.ones(1)
    for _ in range(NOTCHES):
        centre, width = generator.uniform(*CENTRES_HZ), generator.uniform(*WIDTHS_HZ)
        low, high = max(centre - width / 2, 1.0), min(centre + width / 2, NYQUIST_HZ - 1.0)
        length = int(generator.integers(*TAPS)) | 1  # a stop band needs an odd number of taps
        taps = np.convolve(taps, signal.firwin(length, [low, high], fs=SAMPLE_RATE, window="hamming"))
    return np.asarray(taps / np.abs(fft.rfft(taps, 1_024)).max())
