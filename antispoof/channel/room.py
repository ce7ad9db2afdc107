"""Puts speech into a room: a measured impulse response, or one made up."""

from __future__ import annotations

import numpy as np

from antispoof.audio import SAMPLE_RATE
from antispoof.channel.filters import convolve
from antispoof.channel.noise import rms
from antispoof.errors import UserError

_DECAY_PER_RT60 = 3 * np.log(10)  # amplitude falls by 60 dB, a factor of 1000
_FIRST_REFLECTION_SECONDS = 0.003  # one metre of detour


def reverberate(waveform: np.ndarray, impulse_response: np.ndarray) -> np.ndarray:
    """Convolves speech with a room; level, length and the place of the direct sound stay as they are.

    Args:
        waveform: (samples,) float32 at 16 kHz.
        impulse_response: (taps,) at 16 kHz; its largest value is taken for the direct sound.
    """
    if len(impulse_response) == 0 or not np.any(impulse_response):
        raise ValueError("an impulse response needs a sample other than zero")
    direct = int(np.argmax(np.abs(impulse_response)))
    # With the direct sound's sign, so that a room measured with swapped wires does not invert the speech.
    response = np.sign(impulse_response[direct]) * impulse_response.astype(np.float64)
    wet = convolve(waveform, response, direct)
    level = rms(wet)
    return (wet * (rms(waveform) / level if level else 0.0)).astype(np.float32)


def synthetic_impulse_response(
    rt60_seconds: float, generator: np.random.Generator, direct_to_reverberant_db: float = 3.0
) -> np.ndarray:
    """Returns a room's impulse response without a room: a direct sound, then noise that dies away.

    The late part of real rooms is close to Gaussian noise under an exponential (Polack 1988). Early
    reflections, which carry a room's geometry, are left out.

    Args:
        rt60_seconds: Until the reverberation has fallen by 60 dB; it is also the length.
        generator: Where the chance comes from.
        direct_to_reverberant_db: Energy of the direct sound over that of everything behind it.

    Returns:
        (taps,) float32 at 16 kHz, the direct sound first and of height 1.
    """
    if not 0.02 <= rt60_seconds <= 20:
        raise UserError(f"a reverberation time lies between 0.02 and 20 s, not at {rt60_seconds:g}")
    samples = round(rt60_seconds * SAMPLE_RATE)
    times = np.arange(samples) / SAMPLE_RATE
    tail = generator.standard_normal(samples) * np.exp(-_DECAY_PER_RT60 * times / rt60_seconds)
    tail[: round(_FIRST_REFLECTION_SECONDS * SAMPLE_RATE)] = 0
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    return tail.astype(np.float32)
