"""Length: the head of a long recording, the repeats of a short clip, and the shortest that may be."""

from __future__ import annotations

import time

import numpy as np
import pytest

from antispoof.audio import CLIP_SAMPLES, MIN_SAMPLES, SAMPLE_RATE, fit_length, load_audio, load_head
from tests.audio.sound_files import SECONDS, encoded, speech_like


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_the_head_alone_is_the_head_of_the_whole(save, container, rate):
    path = save(encoded(speech_like(rate, seconds=6.0), rate, container))
    head = load_head(path, CLIP_SAMPLES)
    assert len(head) == CLIP_SAMPLES
    assert np.array_equal(head, load_audio(path)[:CLIP_SAMPLES])


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_limit_near_or_beyond_the_end(save, rate):
    """Near the end the resampler's last samples come only with its flush."""
    path = save(encoded(speech_like(rate), rate, "FLAC"))
    whole = load_audio(path)
    assert np.array_equal(load_audio(path, limit_seconds=60), whole)
    assert np.array_equal(load_audio(path, limit_seconds=SECONDS - 1 / SAMPLE_RATE), whole[:-1])


@pytest.mark.parametrize("limit", [0, -1, 0.01, float("nan")])
def test_a_limit_too_short_to_score_is_a_bug_of_the_caller(save, limit):
    with pytest.raises(ValueError, match="limit_seconds"):
        load_audio(save(b"x"), limit_seconds=limit)


def test_the_head_of_a_long_file_is_cheap(save):
    path = save(encoded(np.full(600 * SAMPLE_RATE, 0.25, np.float32), SAMPLE_RATE, "WAV", "PCM_16"))
    start = time.process_time()
    whole = load_audio(path)
    middle = time.process_time()
    head = load_head(path, CLIP_SAMPLES)
    assert time.process_time() - middle < (middle - start) / 2
    assert np.array_equal(head, whole[:CLIP_SAMPLES])


@pytest.mark.parametrize("length", [1, 7, 1_600, 32_300, 64_599, 64_600, 64_601, 200_000])
def test_a_short_clip_is_repeated_and_a_long_one_cut(length):
    waveform = speech_like(seconds=length / SAMPLE_RATE)
    fitted = fit_length(waveform)
    assert fitted.dtype == np.float32
    assert np.array_equal(fitted, np.tile(waveform, CLIP_SAMPLES // length + 1)[:CLIP_SAMPLES])


def test_fitting_leaves_the_given_array_alone():
    waveform = speech_like(seconds=5)
    fit_length(waveform)[:] = 0
    assert waveform.any()
    with pytest.raises(ValueError, match="empty"):
        fit_length(np.empty(0, np.float32))


def test_0_1_s_at_any_rate_is_long_enough(save):
    for rate in (8_000, 44_100, 48_000):
        assert len(load_audio(save(encoded(speech_like(rate, 0.1), rate, "WAV")))) == MIN_SAMPLES
