"""The channels that robustness is measured in: a name, what it means, and what it does to a clip."""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from antispoof import channel
from antispoof.audio import SAMPLE_RATE, fit_length, load_head
from antispoof.speechlike import speech_like
from benchmarks.trial_scores import Clips

CLEAN = "clean"
RT60_SECONDS = 0.5  # a furnished living room
DIRECT_TO_REVERBERANT_DB = 0.0  # a talker about as far away as it takes for the room to be as loud as he is
CLIPPED_AT = 0.25  # share of the peak: 12 dB of overload
LENGTHS_SECONDS = (0.5, 1, 2, 4, 10)

Degrade = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Degradation:
    """One condition; ``degrade`` takes (samples,) float32 at 16 kHz and a generator for its chance."""

    name: str
    about: str
    degrade: Degrade
    codec: str | None = None

    def apply(self, waveform: np.ndarray, clip: str, seed: int) -> np.ndarray:
        """Returns the clip as this channel lets it through; its chance follows from its name and the seed."""
        words = [seed, zlib.crc32(self.name.encode()), zlib.crc32(clip.encode())]
        return self.degrade(waveform, np.random.default_rng(words))

    def fingerprint(self, seed: int) -> str:
        """Returns what changes when the condition does, be it by its code or by another build of a codec."""
        heard = self.apply(speech_like(0, 2 * SAMPLE_RATE), "probe", seed)
        return hashlib.sha256(heard.tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class DegradedClips(Clips):
    """Trials that are heard through a channel."""

    degradation: Degradation
    seed: int

    def waveform(self, index: int, samples: int) -> np.ndarray:
        """Returns a degraded clip as a batch of one, ``(1, samples)`` float32.

        The model's length is cut before the channel and fitted again behind it.
        """
        heard = load_head(self.files[index], samples)
        heard = self.degradation.apply(heard, self.trials[index].name, self.seed)
        return fit_length(heard, samples)[None]


def _coded(codec: str, bit_rate: int | None = None) -> Degrade:
    return lambda waveform, _: channel.transcode(waveform, codec, bit_rate)


def _noisy(snr_db: float) -> Degrade:
    return lambda waveform, generator: channel.add_noise(
        waveform, channel.coloured_noise(len(waveform), generator, "pink"), snr_db
    )


def _in_room(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    room = channel.synthetic_impulse_response(RT60_SECONDS, generator, DIRECT_TO_REVERBERANT_DB)
    return channel.reverberate(waveform, room)


def _gained(gain_db: float) -> Degrade:
    return lambda waveform, _: channel.apply_gain(waveform, gain_db)


def _cut(seconds: float) -> Degrade:
    return lambda waveform, _: waveform[: round(seconds * SAMPLE_RATE)]


@functools.cache
def degradations() -> dict[str, Degradation]:
    """Returns every condition by name, also those whose codec this build of FFmpeg lacks."""
    coded = (
        ("mp3-64k", "MP3, 64 kbit/s", "mp3", 64_000),
        ("aac-32k", "AAC, 32 kbit/s", "aac", 32_000),
        ("opus-16k", "Opus for speech, 16 kbit/s", "opus", 16_000),
        ("g711", "telephone, G.711 mu-law, 8 kHz", "g711-mu", None),
        ("amr-nb", "mobile telephone, AMR narrow-band 12.2 kbit/s", "amr-nb", 12_200),
        ("amr-wb", "mobile telephone, AMR wide-band 23.85 kbit/s", "amr-wb", 23_850),
    )
    rows = [
        Degradation(CLEAN, "as recorded", lambda waveform, _: waveform),
        *(Degradation(name, about, _coded(codec, bits), codec) for name, about, codec, bits in coded),
        Degradation(
            "loss-10%", "10 % of packets lost, 20 ms each", lambda w, g: channel.lose_packets(w, 0.1, g)
        ),
        *(
            Degradation(f"snr-{db}db", f"pink noise, {db} dB below the speech", _noisy(db))
            for db in (20, 10, 5)
        ),
        Degradation("room", f"a room that reverberates for {RT60_SECONDS} s (RT60), synthetic", _in_room),
        Degradation("low-pass", "nothing above 3.6 kHz", lambda w, _: channel.band_limit(w, 0, 3600)),
        Degradation("telephone", "300 to 3400 Hz", lambda w, _: channel.band_limit(w, 300, 3400)),
        *(
            Degradation(f"gain{db:+d}db", f"{db:+d} dB, 16 bits, clipped at full scale", _gained(db))
            for db in (-12, -6, 0, 6, 12)
        ),
        Degradation(
            "clipped",
            f"clipped at {CLIPPED_AT:.0%} of the peak",
            lambda w, _: channel.clip_level(w, CLIPPED_AT),
        ),
        Degradation(
            "silence-1s", "a second of silence first", lambda w, _: channel.add_leading_silence(w, 1.0)
        ),
        Degradation("trimmed", "the silence around the speech cut off", lambda w, _: channel.trim_silence(w)),
        *(
            Degradation(f"length-{s:g}s", f"the first {s:g} s, repeated to the model's length", _cut(s))
            for s in LENGTHS_SECONDS
        ),
    ]
    return {row.name: row for row in rows}
