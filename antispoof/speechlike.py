"""Speech-like test signals: a glottal pulse train through moving formants, with fricatives and pauses.

For checks that must work where no recording is at hand. White noise would flatter a parity check:
it excites every band alike and never falls silent, whereas speech does neither.
"""

from __future__ import annotations

import numpy as np

from antispoof.audio import CLIP_SAMPLES, SAMPLE_RATE

# First three formants in Hz of five vowels (rounded from Peterson and Barney, 1952).
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (530, 1840, 2480), (570, 840, 2410), (300, 870, 2240))
FORMANT_BANDWIDTH_HZ = 90.0


def speech_like(seed: int, samples: int = CLIP_SAMPLES) -> np.ndarray:
    """Returns a speech-like waveform ``(samples,)``, float32, RMS about -26 dBFS.

    Args:
        seed: Decides pitch, vowels, rhythm and level; the same seed gives the same samples.
        samples: Length at 16 kHz.
    """
    random = np.random.default_rng(seed)
    pitch_hz = random.uniform(90, 240)
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < samples:
        length = int(random.uniform(0.06, 0.25) * SAMPLE_RATE)
        kind = random.choice(["vowel", "vowel", "vowel", "fricative", "pause"])
        if kind == "vowel":
            pieces.append(_vowel(random, length, pitch_hz * random.uniform(0.85, 1.2)))
        elif kind == "fricative":
            noise = random.standard_normal(length)
            pieces.append(0.25 * _fade(np.diff(noise, prepend=0.0)))
        else:
            pieces.append(1e-4 * random.standard_normal(length))
    waveform = np.concatenate(pieces)[:samples]
    level = 10 ** (random.normal(-26, 4) / 20)
    return (level * waveform / np.sqrt(np.mean(waveform**2))).clip(-1, 1).astype(np.float32)


def speech_like_batch(count: int, samples: int = CLIP_SAMPLES, seed: int = 0) -> np.ndarray:
    """Returns ``count`` different signals, ``(count, samples)`` float32."""
    return np.stack([speech_like(seed + index, samples) for index in range(count)])


def _vowel(random: np.random.Generator, length: int, pitch_hz: float) -> np.ndarray:
    """A harmonic series whose amplitudes follow three resonances that glide to another vowel."""
    time = np.arange(length) / SAMPLE_RATE
    glide = np.linspace(0, 1, length)
    start, end = (np.array(VOWELS[i], dtype=float) for i in random.choice(len(VOWELS), 2))
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + 0.02 * np.sin(2 * np.pi * 5 * time))) / SAMPLE_RATE
    voice = np.zeros(length)
    for harmonic in range(1, int(7500 / pitch_hz)):
        frequency = harmonic * pitch_hz
        formants = start[:, None] + (end - start)[:, None] * glide  # (3, length)
        gain = (1 / (1 + ((frequency - formants) / FORMANT_BANDWIDTH_HZ) ** 2)).sum(0) + 1e-3
        voice += gain / harmonic * np.sin(harmonic * phase)
    return _fade(voice + 0.005 * random.standard_normal(length))


def _fade(x: np.ndarray) -> np.ndarray:
    edge = min(len(x) // 4, SAMPLE_RATE // 100)
    x[:edge] *= np.linspace(0, 1, edge)
    x[len(x) - edge :] *= np.linspace(1, 0, edge)
    return x
