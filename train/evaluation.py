"""How well a trained detector hears unseen spoofs: clean, at other levels, in noise, band-limited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from antispoof.audio import SAMPLE_RATE
from antispoof.bootstrap import Interval, eer_interval
from antispoof.data import BONAFIDE
from antispoof.metrics import AttackEer, eer_by_attack
from antispoof.models import Detector
from train.augment import FULL_SCALE, add_noise, amplify
from train.dataset import Row
from train.scoring import score_clips, split_by_class

Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
PHONE_BAND_HZ = 3_600


@dataclass(frozen=True)
class Figure:
    """The EER of one split under one condition.

    Attributes:
        split: ``dev`` or ``test``.
        condition: What was done to the recordings, in words.
        eer: With its interval.
        bonafide: Number of trials.
        spoofs: Number of trials.
    """

    split: str
    condition: str
    eer: Interval
    bonafide: int
    spoofs: int


def low_pass(waveform: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """Returns ``waveform`` without anything above ``cutoff_hz``."""
    spectrum = np.fft.rfft(waveform)
    spectrum[np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE) > cutoff_hz] = 0
    return np.fft.irfft(spectrum, len(waveform)).astype(np.float32)


def _white_noise(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return add_noise(waveform, generator.standard_normal(len(waveform)).astype(np.float32), 20)


CLEAN = "as recorded"
CONDITIONS: dict[str, Degradation] = {
    CLEAN: lambda waveform, _: waveform,
    "12 dB louder, clipped": lambda waveform, _: amplify(waveform, 12),
    "12 dB quieter": lambda waveform, _: amplify(waveform, -12),
    "white noise, SNR 20 dB": _white_noise,
    "nothing above 3.6 kHz": lambda waveform, _: low_pass(waveform, PHONE_BAND_HZ),
}


def degrade(clips: Sequence[np.ndarray], condition: str) -> list[np.ndarray]:
    """Returns int16 clips under a condition of ``CONDITIONS``; the noise of clip i is seeded by i."""
    change = CONDITIONS[condition]
    changed = []
    for index, clip in enumerate(clips):
        waveform = change(clip.astype(np.float32) / FULL_SCALE, np.random.default_rng(index))
        changed.append(np.rint(amplify(waveform, 0) * FULL_SCALE).astype(np.int16))
    return changed


def measure(
    model: Detector, split: str, rows: Sequence[Row], clips: Sequence[np.ndarray], condition: str
) -> tuple[Figure, tuple[AttackEer, ...]]:
    """Returns the EER under a condition, over all trials and for the spoofs of each data set."""
    scores = score_clips(model, degrade(clips, condition))
    bonafide, spoofs = split_by_class(scores, rows)
    figure = Figure(split, condition, eer_interval(bonafide, spoofs), len(bonafide), len(spoofs))
    genuine = [row.label == BONAFIDE for row in rows]
    return figure, eer_by_attack(scores, genuine, [row.dataset for row in rows])
