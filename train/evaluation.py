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
Scorer = Callable[[Detector, Sequence[np.ndarray]], np.ndarray]
Condition = tuple[Degradation, ...]  # the ways in which every clip is heard


@dataclass(frozen=True)
class Figure:
    """The EER of one split under one condition.

    Attributes:
        split: ``dev`` or ``test``.
        condition: What was done to the recordings, in words.
        eer: With its interval.
        bonafide: Number of clips.
        spoofs: Number of clips.
    """

    split: str
    condition: str
    eer: Interval
    bonafide: int
    spoofs: int


def _noise(snr_db: float) -> Degradation:
    return lambda waveform, generator: add_noise(waveform, white_noise(len(waveform), generator), snr_db)


def _some_noise(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return _noise(generator.uniform(15, 25))(waveform, generator)


def _through(codec: str, bit_rate: int | None = None) -> Degradation:
    return lambda waveform, _: transcode(waveform, codec, bit_rate)


def _narrow(waveform: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return band_limit(waveform, high_hz=3_600)


def _gain(gain_db: float) -> Degradation:
    return lambda waveform, _: apply_gain(waveform, gain_db)


def _room(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return reverberate(waveform, synthetic_impulse_response(0.4, generator))


CLEAN = "as recorded"
# Every clip in each of six ways: white noise 15 to 25 dB below the speech, nothing above 3.6 kHz, MP3 at
# 64 kbit/s, Opus at 16 kbit/s, 12 dB louder and clipped, and 12 dB quieter. All scores meet one threshold, as
# those of a detector do that is not told what happened to a clip.
CORRUPTED = "corrupted in six ways"
# Tells how much of a figure is owed to what lies around the speech, which gives attacks of ASVspoof away.
TRIMMED = "without the silence around the speech"
_LOUD, _QUIET, _MP3, _OPUS = _gain(12), _gain(-12), _through("mp3", 64_000), _through("opus", 16_000)
CONDITIONS: dict[str, Condition] = {
    CLEAN: (lambda waveform, _: waveform,),
    CORRUPTED: (_some_noise, _narrow, _MP3, _OPUS, _LOUD, _QUIET),
    TRIMMED: (lambda waveform, _: trim_silence(waveform),),
    "12 dB louder, clipped": (_LOUD,),
    "12 dB quieter": (_QUIET,),
    **{f"white noise, SNR {snr_db} dB": (_noise(snr_db),) for snr_db in (25, 20, 15, 10)},
    "nothing above 3.6 kHz": (_narrow,),
    "reverberation, RT60 0.4 s": (_room,),
    "MP3, 64 kbit/s": (_MP3,),
    "AAC, 32 kbit/s": (_through("aac", 32_000),),
    "Opus, 16 kbit/s": (_OPUS,),
    "G.711": (_through("g711-mu"),),
}


def degrade(clips: Sequence[np.ndarray], condition: str) -> list[list[np.ndarray]]:
    """Returns int16 clips under a condition of ``CONDITIONS``, once for each of its ways.

    The chance in clip i is seeded by i, alike in every way.
    """
    ways = CONDITIONS[condition]
    return [[_degraded(clip, way, index) for index, clip in enumerate(clips)] for way in ways]


def _degraded(clip: np.ndarray, way: Degradation, seed: int) -> np.ndarray:
    waveform = way(clip.astype(np.float32) / INT16_SCALE, np.random.default_rng(seed))
    return np.rint(apply_gain(waveform, 0) * INT16_SCALE).astype(np.int16)


def score_ways(
    model: Detector, heard: Sequence[Sequence[np.ndarray]], score: Scorer = score_clips
) -> np.ndarray:
    """Returns the scores (clips, ways) of what `degrade` returned."""
    return np.stack([score(model, clips) for clips in heard], axis=1)


def measure(
    model: Detector, split: str, rows: Sequence[Row], clips: Sequence[np.ndarray], condition: str
) -> tuple[Figure, tuple[AttackEer, ...]]:
    """Returns the EER under a condition, over all trials and for the spoofs of each data set."""
    scores = score_ways(model, degrade(clips, condition))
    bonafide, spoofs = split_by_class(scores, rows)
    figure = Figure(split, condition, eer_interval(bonafide, spoofs), len(bonafide), len(spoofs))
    heard = [row for row in rows for _ in range(scores.shape[1])]
    genuine = [row.label == BONAFIDE for row in heard]
    return figure, eer_by_attack(scores.ravel(), genuine, [row.dataset for row in heard])
