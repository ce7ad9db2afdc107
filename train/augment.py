"""What may happen to a recording in training: where it is cut, and what stands between mouth and detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr
from scipy import fft

from antispoof.audio import SAMPLE_RATE
from antispoof.channel import add_noise, apply_gain, codecs, reverberate, transcode
from antispoof.channel.filters import NYQUIST_HZ
from antispoof.errors import UserError
from train.recipe import AugmentRecipe

CROP_TRIES = 4
QUIET = 0.25  # a crop below this share of its clip's RMS is mostly a pause
LEAST_SHARE = 0.25  # of a crop that is made short and repeated
EQUALISER_KNOTS = 6
HIGH_PASS_HZ = (40.0, 400.0)
WIDEST_MASK = 0.2  # of the spectrum
BIT_RATES = {  # bits per second, of the codecs that have a choice
    "mp3": (24_000, 32_000, 48_000, 64_000),
    "aac": (24_000, 32_000, 48_000, 64_000),
    "opus": (12_000, 16_000, 24_000, 32_000),
    "amr-nb": (12_200, 7_950, 6_700),
}
LONGEST_ROOM = SAMPLE_RATE // 2  # samples of an impulse response; what follows is 30 dB down in most rooms


def random_crop(clip: np.ndarray, samples: int, generator: np.random.Generator) -> np.ndarray:
    """Returns ``samples`` of a clip from a random position, a short clip repeated.

    A crop that is mostly a pause is drawn anew a few times: its label could not be heard.
    """
    start = crop_start(clip, samples, generator)
    return cut(clip, start, samples)


def crop_start(clip: np.ndarray, samples: int, generator: np.random.Generator) -> int:
    """Returns where `random_crop` cuts."""
    if len(clip) <= samples:
        return 0
    floor = QUIET * rms(clip)
    for _ in range(CROP_TRIES):
        start = int(generator.integers(len(clip) - samples + 1))
        if rms(clip[start : start + samples]) >= floor:
            break
    return start


def cut(clip: np.ndarray, start: int, samples: int) -> np.ndarray:
    """Returns ``samples`` of a clip from ``start``, repeated where it ends before."""
    if start + samples <= len(clip):
        return clip[start : start + samples]
    return np.tile(clip, -(-samples // len(clip)))[:samples]


def rms(waveform: np.ndarray) -> float:
    """Returns the root of the mean square of ``waveform``."""
    samples = waveform.astype(np.float32, copy=False)  # as a product, since every crop asks several times
    return float(np.sqrt(np.dot(samples, samples) / len(samples)))


class Augmentation:
    """A room and its noises, then a microphone, then a line; see `AugmentRecipe`."""

    def __init__(
        self, recipe: AugmentRecipe, noises: Sequence[np.ndarray], rooms: Sequence[np.ndarray] = ()
    ) -> None:
        """Keeps noise clips and impulse responses, each (samples,) int16."""
        self._recipe, self._noises = recipe, noises
        self._rooms = [_response(room) for room in rooms]
        check_augment(recipe, len(noises), len(rooms))

    def __call__(self, waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Returns what ``waveform`` (samples,) float32 becomes, of the same length."""
        recipe = self._recipe
        # Nothing is drawn where there is no share, so that recipes from before a share draw what they drew.
        if recipe.speed_share and generator.random() < recipe.speed_share:
            waveform = play_at(waveform, generator.uniform(*recipe.speed))
        if generator.random() < recipe.short_share:
            kept = int(len(waveform) * generator.uniform(LEAST_SHARE, 1))
            waveform = cut(waveform[:kept], 0, len(waveform))
        if self._rooms and generator.random() < recipe.room_share:
            waveform = reverberate(waveform, self._rooms[int(generator.integers(len(self._rooms)))])
        if generator.random() < recipe.distortion_share:
            waveform = distort(waveform, generator)
        if recipe.rawboost_share and generator.random() < recipe.rawboost_share:
            from train.rawboost import rawboost  # not for all recipes: scipy.signal takes half a second

            waveform = rawboost(waveform, generator)
        if self._noises and generator.random() < recipe.noise_share:
            noise = self._noises[int(generator.integers(len(self._noises)))]
            noise = random_crop(noise, len(waveform), generator).astype(np.float32)
            waveform = add_noise(waveform, noise, generator.uniform(*recipe.noise_snr_db))
        waveform = self._line(waveform, generator)
        if generator.random() < recipe.telephone_share:
            waveform = transcode(waveform, str(generator.choice(["g711-mu", "g711-a"])))
        if recipe.codec_share and generator.random() < recipe.codec_share:
            waveform = self._through_codec(waveform, generator)
        return apply_gain(waveform, generator.uniform(*recipe.gain_db))

    def _through_codec(self, waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        codec = str(generator.choice(list(self._recipe.codecs)))
        rates = BIT_RATES.get(codec)
        return transcode(waveform, codec, int(generator.choice(rates)) if rates else None)

    def _line(self, waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Returns ``waveform`` after everything that is a frequency response, and stationary noise."""
        samples = len(waveform)
        points = fft.next_fast_len(samples, real=True)
        frequencies = np.linspace(0, NYQUIST_HZ, points // 2 + 1)
        response = self._response_of_line(frequencies, generator)
        hiss = generator.random() < self._recipe.hiss_share
        if response is not None:
            spectrum = fft.rfft(waveform, points) * response.astype(np.float32)
            level = rms(waveform)
            waveform = fft.irfft(spectrum, points)[:samples]
            waveform = waveform * np.float32(level / (rms(waveform) + 1e-9))
        if hiss:
            slope = np.maximum(frequencies, 50) ** -generator.uniform(0, 0.5)
            # White noise has a white spectrum, so none has to be transformed to get one.
            noise = generator.standard_normal(2 * len(slope), dtype=np.float32).view(np.complex64)
            noise = fft.irfft(noise * slope.astype(np.float32), points)[:samples]
            waveform = add_noise(waveform, noise, generator.uniform(*self._recipe.noise_snr_db))
        return waveform

    def _response_of_line(self, frequencies: np.ndarray, generator: np.random.Generator) -> np.ndarray | None:
        """Returns a magnitude for each frequency; None where nothing was drawn."""
        recipe, drawn = self._recipe, generator.random(4)
        shares = (recipe.equaliser_share, recipe.low_pass_share, recipe.high_pass_share, recipe.mask_share)
        if not (drawn < shares).any():
            return None
        response = np.ones(len(frequencies))
        if drawn[0] < shares[0]:
            knots = np.r_[0, np.sort(generator.uniform(0, NYQUIST_HZ, EQUALISER_KNOTS)), NYQUIST_HZ]
            levels_db = generator.normal(0, recipe.equaliser_db, len(knots))
            response *= 10 ** (np.interp(frequencies, knots, levels_db) / 20)
        if drawn[1] < shares[1]:
            edge, order = generator.uniform(*recipe.low_pass_hz), generator.uniform(8, 80)
            response /= np.sqrt(1 + (frequencies / edge) ** order)
        if drawn[2] < shares[2]:
            edge, order = generator.uniform(*HIGH_PASS_HZ), generator.uniform(2, 8)
            response /= np.sqrt(1 + (edge / np.maximum(frequencies, 1)) ** order)
        if drawn[3] < shares[3]:
            low = generator.uniform(0, NYQUIST_HZ)
            high = low + generator.uniform(0, WIDEST_MASK * NYQUIST_HZ)
            response[(frequencies >= low) & (frequencies < high)] = 0
        return response


def check_augment(recipe: AugmentRecipe, noises: int, rooms: int) -> None:
    """Refuses what needs recordings or codecs that are not here.

    Args:
        recipe: What is asked for.
        noises: Number of noise clips.
        rooms: Number of impulse responses.

    Raises:
        UserError: Some are missing.
    """
    for share, kind, count in (("noise_share", "noise", noises), ("room_share", "room", rooms)):
        if getattr(recipe, share) and not count:
            raise UserError(f"augment.{share}: the list has no {kind} to use; see data.{kind}_folders")
    missing = set(recipe.codecs) - set(codecs()) if recipe.codec_share else ()
    if missing:
        raise UserError(f"augment.codecs: no {min(missing)} here; there are {', '.join(codecs())}")


def play_at(waveform: np.ndarray, speed: float) -> np.ndarray:
    """Returns ``waveform`` (samples,) played ``speed`` times as fast, repeated or cut to the same length."""
    return cut(soxr.resample(waveform, SAMPLE_RATE * speed, SAMPLE_RATE), 0, len(waveform))


def distort(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns ``waveform`` with impulsive noise that follows it, or with harmonics of its peaks.

    What RawBoost does (`train.rawboost`), without its filters and at a fraction of its cost.
    """
    if generator.random() < 0.5:
        hit = generator.random(len(waveform), dtype=np.float32) < generator.uniform(0, 0.05)
        strength = generator.standard_normal(len(waveform), dtype=np.float32) * generator.uniform(0.2, 1)
        return (waveform + hit * np.abs(waveform) * strength).astype(np.float32)
    level = 3 * rms(waveform) + 1e-9
    x = waveform / level
    harmonics = generator.uniform(0, 0.3) * x * np.abs(x) + generator.uniform(0, 0.1) * x**3
    return ((x + harmonics) * level).astype(np.float32)


def _response(room: np.ndarray) -> np.ndarray:
    """Returns an impulse response from shortly before its direct sound on."""
    response = room.astype(np.float32)
    start = max(0, int(np.argmax(np.abs(response))) - 16)
    response = response[start : start + LONGEST_ROOM]
    fade = min(len(response), 256)
    response[-fade:] *= np.hanning(2 * fade)[fade:].astype(np.float32)
    return response
