"""Audio that must not be scored is refused: silent, too short or long, too loud, at an absurd rate."""

from __future__ import annotations

import resource
import time

import numpy as np
import pytest

from antispoof import audio
from antispoof.audio import MIN_SAMPLES, SAMPLE_RATE, validate_waveform
from antispoof.errors import UserError
from tests.audio.sound_files import by_ffmpeg, changed, encoded, flac_with_length, refusal, speech_like


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        ([0.1] * 16_000, "float32 array, not list"),
        (speech_like().astype(np.float64), "float32 array, not float64"),
        ((speech_like() * 32767).astype(np.int16), "float32 array, not int16"),
        (speech_like()[None], r"shape \(samples,\), not \(1, 32000\)"),
        (np.empty(0, np.float32), "no audio"),
        (speech_like()[: MIN_SAMPLES - 1], "0.100 s: at least 0.1 s"),
        (changed(-1, np.nan), "NaN or infinite"),
        (changed(0, np.inf), "NaN or infinite"),
        (changed(5, -np.inf), "NaN or infinite"),
        (speech_like() * 32767, "peak of"),
        (np.zeros(SAMPLE_RATE, np.float32), "silent"),
        (-np.zeros(SAMPLE_RATE, np.float32), "silent"),
    ],
)
def test_an_array_that_must_not_be_scored_is_refused(waveform, reason):
    with pytest.raises(UserError, match=f"^upload {'.*'}{reason}"):
        validate_waveform(waveform, "upload")


def test_the_shortest_and_loudest_arrays_accepted():
    validate_waveform(speech_like()[:MIN_SAMPLES])
    validate_waveform(changed(0, audio.MAX_PEAK))
    validate_waveform(np.eye(1, MIN_SAMPLES, dtype=np.float32)[0])


@pytest.mark.parametrize(
    ("samples", "subtype", "reason"),
    [
        (changed(20_000, np.nan), "FLOAT", "NaN or infinite"),
        (changed(20_000, -np.inf), "FLOAT", "NaN or infinite"),
        (speech_like().astype(np.float64) * 1e300, "DOUBLE", "NaN or infinite"),
        (speech_like() * 32767, "FLOAT", "scaled to -1..1"),
        (np.zeros(SAMPLE_RATE, np.float32), "PCM_16", "silent"),
        (np.stack([speech_like(), -speech_like()], axis=1), "FLOAT", "silent"),
        (speech_like()[: MIN_SAMPLES - 1], "PCM_16", "lasts 0.100 s: at least 0.1 s"),
        (speech_like()[:1], "PCM_16", "lasts 0.000 s"),
        (np.zeros((0,), np.float32), "PCM_16", "no audio"),
        (np.zeros((1_600, 33), np.float32), "PCM_16", "33 channels"),
        (np.zeros((1_600, 1_000), np.float32), "PCM_16", "1000 channels"),
    ],
)
def test_audio_that_must_not_be_scored_is_refused(save, samples, subtype, reason):
    assert reason in refusal(save(encoded(samples, SAMPLE_RATE, "WAV", subtype)))


@pytest.mark.parametrize("rate", [1, 3_999, 768_001, 10_000_000])
def test_an_absurd_sample_rate_is_refused(save, rate):
    assert f"sample rate of {rate} Hz" in refusal(save(encoded(speech_like(), rate, "WAV", "PCM_16")))


def test_doubles_beyond_float32_are_refused_by_both_decoders(save):
    path = save(encoded(speech_like().astype(np.float64) * 1e300, SAMPLE_RATE, "WAV", "DOUBLE"))
    with pytest.raises(audio._Refused, match="infinite"):
        by_ffmpeg(path)


def test_a_header_that_claims_too_long_a_recording_is_refused_unread(save):
    data = flac_with_length(0xFFFF_FFFF)
    start = time.process_time()
    for options in ({}, {"limit_seconds": 1.0}):
        assert "lasts 268435 s by its header" in refusal(save(data), **options)
    assert time.process_time() - start < 0.1
    assert "at most 1 s" in refusal(save(encoded(speech_like(), SAMPLE_RATE, "WAV")), max_seconds=1)


@pytest.mark.parametrize("header", [b"", b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)], ids=["libsndfile", "ffmpeg"])
def test_a_decompression_bomb_is_stopped_on_the_way(save, header):
    """Ten hours of silence are 1.5 MB of FLAC, which does not say how long it is."""
    seconds = 100
    quiet = encoded(np.full(seconds * SAMPLE_RATE, 0.25, np.float32), SAMPLE_RATE, "FLAC")
    path = save(header + flac_with_length(0, quiet))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "is longer than 10 s" in refusal(path, max_seconds=10)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB on Linux
