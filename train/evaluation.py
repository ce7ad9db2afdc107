"""How well a trained detector hears unseen spoofs: clean, at other levels, in noise, band-limited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from antispoof.bootstrap import Interval, eer_interval
from antispoof.channel import (
    add_noise,
    apply_gain,
    band_limit,
    reverberate,
    synthetic_impulse_response,
    transcode,
    trim_silence,
    white_noise,
)
from antispoof.data import BONAFIDE
from antispoof.metrics import AttackEer, eer_by_attack
from antispoof.models import Detector
from train.dataset import INT16_SCALE, Row
from train.scoring import score_clips, split_by_class

Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


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


def _noise(waveform: np.ndarray, generator: np.random.Generator, snr_db: float) -> np.ndarray:
    return add_noise(waveform, white_noise(len(waveform), generator), snr_db)


def _room(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return reverberate(waveform, synthetic_impulse_response(0.4, generator))


def _corrupt(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns what one of six ordinary mishaps, drawn by chance, makes of a clip."""
    mishaps: tuple[Callable[[], np.ndarray], ...] = (
        lambda: _noise(waveform, generator, generator.uniform(15, 25)),
        lambda: band_limit(waveform, high_hz=3_600),
        lambda: transcode(waveform, "mp3", 64_000),
        lambda: transcode(waveform, "opus", 16_000),
        lambda: apply_gain(waveform, 12),
        lambda: apply_gain(waveform, -12),
    )
    return mishaps[int(generator.integers(len(mishaps)))]()


CLEAN = "as recorded"
# Each clip in its own way: white noise 15 to 25 dB below the speech, nothing above 3.6 kHz, MP3 at 64 kbit/s,
# Opus at 16 kbit/s, 12 dB louder and clipped, or 12 dB quieter.
CORRUPTED = "corrupted"
# Tells how much of a figure is owed to what lies around the speech, which gives attacks of ASVspoof away.
TRIMMED = "without the silence around the speech"
CONDITIONS: dict[str, Degradation] = {
    CLEAN: lambda waveform, _: waveform,
    CORRUPTED: _corrupt,
    TRIMMED: lambda waveform, _: trim_silence(waveform),
    "12 dB louder, clipped": lambda waveform, _: apply_gain(waveform, 12),
    "12 dB quieter": lambda waveform, _: apply_gain(waveform, -12),
    "white noise, SNR 25 dB": lambda waveform, generator: _noise(waveform, generator, 25),
    "white noise, SNR 20 dB": lambda waveform, generator: _noise(waveform, generator, 20),
    "white noise, SNR 15 dB": lambda waveform, generator: _noise(waveform, generator, 15),
    "white noise, SNR 10 dB": lambda waveform, generator: _noise(waveform, generator, 10),
    "nothing above 3.6 kHz": lambda waveform, _: band_limit(waveform, high_hz=3_600),
    "reverberation, RT60 0.4 s": _room,
    "MP3, 64 kbit/s": lambda waveform, _: transcode(waveform, "mp3", 64_000),
    "AAC, 32 kbit/s": lambda waveform, _: transcode(waveform, "aac", 32_000),
    "Opus, 16 kbit/s": lambda waveform, _: transcode(waveform, "opus", 16_000),
    "G.711": lambda waveform, _: transcode(waveform, "g711-mu"),
}


def degrade(clips: Sequence[np.ndarray], condition: str) -> list[np.ndarray]:
    """Returns int16 clips under a condition of ``CONDITIONS``; the noise of clip i is seeded by i."""
    change = CONDITIONS[condition]
    changed = []
    for index, clip in enumerate(clips):
        waveform = change(clip.astype(np.float32) / INT16_SCALE, np.random.default_rng(index))
        changed.append(np.rint(apply_gain(waveform, 0) * INT16_SCALE).astype(np.int16))
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
