"""What may happen to a crop in training: each way by its effect and its seed, and those of RawBoost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import signal

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from train import rawboost
from train.augment import Augmentation
from train.rawboost import convolutive, impulsive, notches, stationary
from train.recipe import AugmentRecipe

CROP = 16_000
ROUNDING = 2e-4  # of 16 bits, several times
ECHO = np.zeros(4_000, np.int16)
ECHO[0], ECHO[1_600] = 20_000, 10_000
HUM = (8_000 * np.sin(2 * np.pi * 100 / SAMPLE_RATE * np.arange(CROP))).astype(np.int16)
SHARES: dict[str, dict[str, Any]] = {
    "speed_share": {},
    "short_share": {},
    "room_share": {},
    "distortion_share": {},
    "rawboost_share": {},
    "noise_share": {"noise_snr_db": (0, 30)},
    "equaliser_share": {},
    "low_pass_share": {},
    "high_pass_share": {},
    "mask_share": {},
    "hiss_share": {},
    "codec_share": {},
}


def heard(wave: np.ndarray, seed: int = 0, **recipe: Any) -> np.ndarray:
    """Returns what a crop becomes by a recipe."""
    augment = Augmentation(AugmentRecipe(**recipe), [HUM], [ECHO])
    return augment(wave, np.random.default_rng(seed))


def white(seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(CROP).astype(np.float32)


def tone(frequency: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency / SAMPLE_RATE * np.arange(CROP))).astype(np.float32)


def level_db(wave: np.ndarray, low_hz: float = 0, high_hz: float = SAMPLE_RATE / 2) -> float:
    """Returns the mean power of a band, in dB."""
    frequencies, power = signal.welch(wave, SAMPLE_RATE, nperseg=2_048)
    return float(10 * np.log10(power[(frequencies >= low_hz) & (frequencies <= high_hz)].mean() + 1e-20))


def snr_db(wave: np.ndarray, noisy: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wave).mean() / np.square(noisy - wave).mean()))


def test_without_any_share_only_rounding_is_left() -> None:
    wave = speech_like(0, CROP)
    assert np.abs(heard(wave) - wave).max() < ROUNDING


@pytest.mark.parametrize("share", SHARES)
def test_every_way_follows_its_seed_and_keeps_the_form(share: str) -> None:
    wave = speech_like(0, CROP)
    recipe = {share: 1.0, **SHARES[share]}
    one, again, other = (heard(wave, seed, **recipe) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other) or share == "room_share"  # there is one room
    assert np.abs(one - wave).max() > 10 * ROUNDING
    for result in (one, heard(np.zeros(CROP, np.float32), **recipe)):
        assert result.shape == wave.shape
        assert result.dtype == np.float32
        assert np.isfinite(result).all()
    changed = [np.abs(heard(wave, seed, **{share: 0.5, **SHARES[share]}) - wave).max() for seed in range(12)]
    assert 0 < sum(value > 10 * ROUNDING for value in changed) < 12


def test_a_short_crop_repeats_its_beginning() -> None:
    wave = white()
    short = heard(wave, short_share=1.0)
    kept = int(np.argmax(np.abs(short - wave) > ROUNDING))
    assert CROP / 4 <= kept < CROP
    assert np.abs(short - np.resize(wave[:kept], CROP)).max() < ROUNDING


def test_a_room_answers_with_its_echo() -> None:
    wave = white()
    dry = wave + 0.5 * np.r_[np.zeros(1_600), wave[:-1_600]]
    assert np.corrcoef(heard(wave, room_share=1.0), dry)[0, 1] > 0.999


def test_distortion_hits_few_samples_or_adds_harmonics() -> None:
    wave = tone(500)
    for seed in range(8):
        distorted = heard(wave, seed, distortion_share=1.0)
        hit = np.mean(np.abs(distorted - wave) > ROUNDING)
        third = level_db(distorted, 1_450, 1_550) - level_db(wave, 1_450, 1_550)
        assert hit < 0.06 or third > 20


@pytest.mark.parametrize("ratio", [0, 20])
def test_a_recorded_noise_comes_at_its_level(ratio: float) -> None:
    wave = speech_like(0, CROP)
    noisy = heard(wave, noise_share=1.0, noise_snr_db=(ratio, ratio))
    assert snr_db(wave, noisy) == pytest.approx(ratio, abs=0.5)
    assert level_db(noisy - wave, 50, 150) > level_db(noisy - wave, 1_000, 7_000) + 30


def test_an_equaliser_bends_the_response_and_keeps_the_level() -> None:
    wave = white()
    bands = np.arange(250, 7_750, 250)
    for seed in range(4):
        bent = heard(wave, seed, equaliser_share=1.0, equaliser_db=6.0)
        gains = [level_db(bent, low, low + 250) - level_db(wave, low, low + 250) for low in bands]
        assert 1 < np.std(gains) < 15
        assert level_db(bent) == pytest.approx(level_db(wave), abs=0.5)


def test_a_low_pass_takes_the_top_and_a_high_pass_the_bottom() -> None:
    wave = white()
    for seed in range(4):
        low = heard(wave, seed, low_pass_share=1.0, low_pass_hz=(3_000, 3_000))
        assert level_db(low, 6_500, 8_000) < level_db(low, 100, 2_000) - 20
        high = heard(wave, seed, high_pass_share=1.0)
        assert level_db(high, 0, 8) < level_db(high, 1_000, 7_000) - 6
        assert level_db(high, 1_000, 7_000) == pytest.approx(level_db(wave, 1_000, 7_000), abs=0.5)


def test_a_mask_takes_one_band_out() -> None:
    for seed in range(4):
        spectrum = np.abs(np.fft.rfft(heard(white(), seed, mask_share=1.0)))
        # White noise itself comes this low in one bin of a hundred thousand.
        gone = np.flatnonzero(spectrum < 0.003 * np.median(spectrum))
        assert 0 < len(gone) <= 0.2 * len(spectrum) + 1
        assert gone[-1] - gone[0] < 1.02 * len(gone) + 2


def test_hiss_lies_between_white_and_pink() -> None:
    wave = tone(500)
    for seed in range(4):
        noise = heard(wave, seed, hiss_share=1.0, noise_snr_db=(20, 20)) - wave
        assert 10 * np.log10(np.square(wave).mean() / np.square(noise).mean()) == pytest.approx(20, abs=0.5)
        octaves = np.log2(6_000 / 200)
        slope = (level_db(noise, 5_000, 7_000) - level_db(noise, 150, 250)) / octaves
        assert -3.6 < slope < 0.6


def test_the_telephone_ends_below_four_kilohertz() -> None:
    wave = white()
    line = heard(wave, telephone_share=1.0)
    assert level_db(line, 4_300, 8_000) < level_db(line, 500, 3_000) - 20


def test_gain_is_drawn_between_its_limits_and_clips() -> None:
    wave = speech_like(0, CROP)
    for seed in range(4):
        gain = level_db(heard(wave, seed, gain_db=(-20, -10))) - level_db(wave)
        assert -20.1 < gain < -9.9
    assert np.abs(heard(wave, gain_db=(40, 40))).max() <= 1


def test_codecs_are_used_when_they_are_asked_for() -> None:
    wave = speech_like(0, CROP)
    for name in ("mp3", "aac"):
        recipe = AugmentRecipe(codec_share=1.0, codecs=(name,))
        coded = Augmentation(recipe, [])(wave, np.random.default_rng(0))
        assert coded.shape == wave.shape
        assert 1e-4 < np.square(coded - wave).mean() / np.square(wave).mean() < 0.5
    with pytest.raises(UserError, match=r"augment.codecs: no mpeg"):
        Augmentation(AugmentRecipe(codec_share=0.5, codecs=("mpeg",)), [])


def test_a_crop_that_is_played_faster_keeps_its_length_and_is_higher() -> None:
    tone = np.sin(2 * np.pi * 1_000 / SAMPLE_RATE * np.arange(CROP)).astype(np.float32)
    for speed in (0.8, 1.25):
        recipe = AugmentRecipe(speed_share=1.0, speed=(speed, speed))
        played = Augmentation(recipe, [])(tone, np.random.default_rng(0))
        assert played.shape == tone.shape
        spectrum = np.abs(np.fft.rfft(played * np.hanning(CROP)))
        assert np.argmax(spectrum) * SAMPLE_RATE / CROP == pytest.approx(1_000 * speed, abs=10)


# ---- RawBoost


def test_notches_take_bands_out_and_amplify_nothing() -> None:
    for seed in range(8):
        gain = np.abs(np.fft.rfft(notches(np.random.default_rng(seed)), 8_192))
        assert gain.max() == pytest.approx(1, abs=0.02)
        assert gain.min() < 0.5


def test_a_bent_line_adds_harmonics_and_nothing_else() -> None:
    third, elsewhere = [], []
    for seed in range(8):
        line = convolutive(tone(500), np.random.default_rng(seed))
        third.append(level_db(line, 1_450, 1_550) - level_db(line, 450, 550))
        elsewhere.append(level_db(line, 1_700, 1_800) - level_db(line, 450, 550))
    assert -40 < np.median(third) < -10
    assert np.median(elsewhere) < -60


def test_a_bent_line_delays_nothing() -> None:
    wave = white()
    for seed in range(8):
        line = convolutive(wave, np.random.default_rng(seed))
        likeness = signal.correlate(line, wave)
        assert np.argmax(np.abs(likeness)) == CROP - 1
    for power in range(1, rawboost.POWERS):  # every power, not only the loudest
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rawboost, "WEAKER_DB", (0.0, 0.0))
            patch.setattr(rawboost, "POWERS", power + 1)
            bent = np.abs(wave) / np.abs(wave).max()
            likeness = signal.correlate(convolutive(bent, np.random.default_rng(0)), bent - bent.mean())
            assert np.argmax(np.abs(likeness)) == CROP - 1


def test_impulses_follow_the_signal() -> None:
    wave = white()
    counts = []
    for seed in range(8):
        off = impulsive(wave, np.random.default_rng(seed)) - wave
        counts.append(np.mean(off != 0))
        assert (np.abs(off) <= rawboost.HIT_GAIN * np.abs(wave) + 1e-6).all()
    assert 0 < np.mean(counts) <= rawboost.MOST_HIT
    assert max(counts) <= rawboost.MOST_HIT


def test_stationary_noise_has_its_level_and_its_notches() -> None:
    wave = tone(500)
    for seed in range(8):
        noisy = stationary(wave, np.random.default_rng(seed))
        low, high = rawboost.NOISE_SNR_DB
        assert low - 0.1 < snr_db(wave, noisy) < high + 0.1
        bands = [level_db(noisy - wave, start, start + 200) for start in range(0, 8_000, 200)]
        assert max(bands) - min(bands) > 6  # white noise alone: 2


def test_each_of_the_ways_is_drawn_and_none_is_louder_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    wave, drawn = speech_like(0, CROP), Counter[str]()
    for seed in range(8):
        assert np.abs(rawboost.rawboost(wave, np.random.default_rng(seed))).max() == pytest.approx(
            np.abs(wave).max(), rel=1e-5
        )

    def noted(number: int) -> Any:
        def way(waveform: np.ndarray, _: np.random.Generator) -> np.ndarray:
            drawn[number] += 1
            return waveform

        return (way,)

    monkeypatch.setattr(rawboost, "WAYS", tuple(noted(number) for number in range(len(rawboost.WAYS))))
    for seed in range(200):
        rawboost.rawboost(wave, np.random.default_rng(seed))
    assert min(drawn.values()) > 25
    assert len(drawn) == len(rawboost.WAYS) == 4


def test_starting_a_training_imports_no_slow_package_of_some_recipes() -> None:
    code = "import sys, train.session; print('scipy.signal' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.stdout.strip() == "False"
