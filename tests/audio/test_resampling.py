"""Every rate and any number of channels become 16 kHz mono, without aliases and whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from antispoof import audio
from antispoof.audio import SAMPLE_RATE, load_audio
from tests.audio.sound_files import (
    LOSSLESS_LEVEL_TOLERANCE_DB,
    SECONDS,
    assert_is_the_tone,
    encoded,
    speech_like,
    tone,
)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 768_000])
def test_other_rates_keep_pitch_level_and_length(save, rate):
    waveform = load_audio(save(encoded(tone(rate), rate, "WAV", "FLOAT")))
    assert abs(len(waveform) - SECONDS * SAMPLE_RATE) <= 1
    assert_is_the_tone(waveform, LOSSLESS_LEVEL_TOLERANCE_DB)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_resampling_block_by_block_is_resampling_at_once(save, monkeypatch, rate):
    path = save(encoded(speech_like(rate), rate, "WAV", "FLOAT"))
    at_once = load_audio(path)
    monkeypatch.setattr(audio, "_BLOCK_FRAMES", 1_000)
    assert np.array_equal(load_audio(path), at_once)


def test_a_tone_above_8_khz_does_not_fold_into_the_signal(save):
    rate = 48_000
    high = (0.5 * np.sin(2 * np.pi * 11_000 * np.arange(2 * rate) / rate)).astype(np.float32)
    waveform = load_audio(save(encoded(high, rate, "WAV", "FLOAT")))
    middle = waveform[SAMPLE_RATE // 2 : -SAMPLE_RATE // 2]
    assert np.abs(middle).max() < 1e-4  # soxr HQ rejects by 100 dB and more


@pytest.mark.parametrize("channels", [2, 6, 32])
def test_channels_are_averaged(save, channels):
    samples = np.stack([speech_like(seed=k) for k in range(channels)], axis=1)
    waveform = load_audio(save(encoded(samples, SAMPLE_RATE, "WAV", "FLOAT")))
    assert np.array_equal(waveform, samples.mean(axis=1, dtype=np.float64).astype(np.float32))
