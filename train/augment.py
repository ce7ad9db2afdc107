"""What may happen to a recording in training: where it is cut, how loud it is, what hums behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.recipe import AugmentRecipe

CROP_TRIES = 4
QUIET = 0.25  # a crop below this share of its clip's RMS is mostly a pause
FULL_SCALE = 32_768  # of 16 bits


def random_crop(clip: np.ndarray, samples: int, generator: np.random.Generator) -> np.ndarray:
    """Returns ``samples`` of a clip from a random position, a short clip repeated.

    A crop that is mostly a pause is drawn anew a few times: its label could not be heard.
    """
    if len(clip) <= samples:
        return np.tile(clip, -(-samples // len(clip)))[:samples]
    floor = QUIET * rms(clip)
    for _ in range(CROP_TRIES):
        start = generator.integers(len(clip) - samples + 1)
        crop = clip[start : start + samples]
        if rms(crop) >= floor:
            break
    return crop


def rms(waveform: np.ndarray) -> float:
    """Returns the root of the mean square of ``waveform``."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def add_noise(waveform: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Returns ``waveform`` with ``noise`` of equal length under it, ``snr_db`` below its power."""
    level = rms(noise)
    if level == 0:
        return waveform
    return waveform + noise * np.float32(rms(waveform) / level * 10 ** (-snr_db / 20))


def amplify(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    """Returns ``waveform`` at another level, rounded and clipped to 16 bits as a recorder would."""
    scaled = np.rint(waveform * (FULL_SCALE * 10 ** (gain_db / 20)))
    return (np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE).astype(np.float32)


class Augmentation:
    """Noise, then gain: what stands in front of a microphone, then the microphone."""

    def __init__(self, recipe: AugmentRecipe, noises: Sequence[np.ndarray]) -> None:
        """Keeps the noise clips, each (samples,) int16."""
        self._recipe, self._noises = recipe, noises

    def __call__(self, waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Returns what ``waveform`` (samples,) float32 becomes."""
        if self._noises and generator.random() < self._recipe.noise_share:
            noise = self._noises[int(generator.integers(len(self._noises)))]
            noise = random_crop(noise, len(waveform), generator).astype(np.float32)
            waveform = add_noise(waveform, noise, generator.uniform(*self._recipe.noise_snr_db))
        return amplify(waveform, generator.uniform(*self._recipe.gain_db))
