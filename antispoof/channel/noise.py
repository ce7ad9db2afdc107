"""Makes noise and adds it at a stated distance below the speech."""

from __future__ import annotations

import numpy as np

from antispoof.errors import UserError

# The exponent of the power's fall with frequency; 1 is 3 dB per octave.
COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}


def white_noise(samples: int, generator: np.random.Generator) -> np.ndarray:
    """Returns Gaussian noise of unit RMS (in expectation), (samples,) float32."""
    return generator.standard_normal(samples, dtype=np.float32)


def coloured_noise(samples: int, generator: np.random.Generator, colour: str = "pink") -> np.ndarray:
    """Returns Gaussian noise of unit RMS, (samples,) float32, whose spectrum has a colour's slope.

    Args:
        samples: Length.
        generator: Where the chance comes from.
        colour: ``white`` is flat, ``pink`` falls by 3 dB per octave, ``brown`` by 6.
    """
    if colour not in COLOURS:
        raise UserError(f"no noise is called {colour!r}; choose from: {', '.join(COLOURS)}")
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    frequency = np.arange(len(spectrum), dtype=np.float64)
    frequency[0] = np.inf if COLOURS[colour] else 1.0  # a slope would make the mean value infinite
    noise = np.fft.irfft(spectrum * frequency ** (-COLOURS[colour] / 2), samples)
    level = rms(noise)  # zero where one sample was all, whose mean value was taken away
    return (noise / level if level else noise).astype(np.float32)


def add_noise(waveform: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Adds noise whose power, over the whole waveform, lies ``snr_db`` below that of the speech.

    Silent speech or silent noise has no such ratio: the speech then comes back as it was.

    Args:
        waveform: (samples,) float32.
        noise: Any length and level; repeated where it is short, its head taken where it is long.
        snr_db: Signal-to-noise ratio in dB.
    """
    if len(noise) == 0:
        raise ValueError("an empty noise cannot be repeated")
    cover = np.resize(noise, len(waveform)).astype(np.float64)
    speech_rms, noise_rms = rms(waveform), rms(cover)
    if speech_rms == 0 or noise_rms == 0:
        return waveform.copy()
    gain = speech_rms / noise_rms * 10 ** (-snr_db / 20)
    return (waveform + gain * cover).astype(np.float32)


def rms(waveform: np.ndarray) -> float:
    """Returns the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
