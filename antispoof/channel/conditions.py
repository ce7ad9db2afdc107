"""What may befall a recording, by name: what detectors are judged in, and their thresholds fitted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from antispoof.channel.damage import apply_gain, trim_silence
from antispoof.channel.filters import band_limit
from antispoof.channel.noise import add_noise, white_noise
from antispoof.channel.room import reverberate, synthetic_impulse_response
from antispoof.channel.transcoding import transcode

Mishap = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Condition = tuple[Mishap, ...]  # the ways in which every recording is heard


def _noise(snr_db: float) -> Mishap:
    return lambda waveform, generator: add_noise(waveform, white_noise(len(waveform), generator), snr_db)


def _some_noise(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return _noise(generator.uniform(15, 25))(waveform, generator)


def _through(codec: str, bit_rate: int | None = None) -> Mishap:
    return lambda waveform, _: transcode(waveform, codec, bit_rate)


def _narrow(waveform: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return band_limit(waveform, high_hz=3_600)


def _gain(gain_db: float) -> Mishap:
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
# Where thresholds are fitted. Recordings of one corpus are alike, cleaner than what a detector will hear, and
# lie in silence of their own: fitted to them as they are, thresholds refuse much genuine speech of any other.
FITTED = (CLEAN, CORRUPTED, TRIMMED)


def hear(waveform: np.ndarray, condition: str, seed: int) -> list[np.ndarray]:
    """Returns a recording under a condition of ``CONDITIONS``, once for each of its ways, in 16 bits.

    Args:
        waveform: (samples,) float32 at 16 kHz.
        condition: Its name.
        seed: Of the chance, which begins anew in every way.

    Returns:
        (samples,) float32 for each way; a way may shorten or lengthen the recording.
    """
    ways = CONDITIONS[condition]
    return [apply_gain(way(waveform, np.random.default_rng(seed)), 0) for way in ways]
