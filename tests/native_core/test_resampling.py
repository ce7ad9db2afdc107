"""Resampling in the core: soxr's samples and scores, no aliases, and the length that was promised."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soxr

from antispoof.audio import CLIP_SAMPLES, SAMPLE_RATE, fit_length
from antispoof.speechlike import speech_like
from runtimes.native_core import resample

# Two designs of a filter that is 120 dB down: soxr's HQ and ours, in RMS relative to the signal. Measured
# -120 dB for 24 and 48 kHz, -98 for 8 and 32 kHz, -72 for the rest.
SOXR_DB = {8_000: -90, 11_025: -65, 22_050: -65, 24_000: -110, 32_000: -90, 44_100: -65, 48_000: -110}
SCORE_TOLERANCE = 1e-3  # of scores of resampled audio, beside soxr's; promised


@pytest.mark.parametrize("rate", SOXR_DB)
def test_resampling_is_soxrs(rate: int) -> None:
    x = soxr.resample(speech_like(8, 32_000), SAMPLE_RATE, rate, quality="VHQ").astype(np.float32)
    ours, soxrs = resample(x, rate), soxr.resample(x, rate, SAMPLE_RATE, quality="HQ")
    assert len(ours) == len(soxrs)
    assert 10 * math.log10(np.mean((ours - soxrs) ** 2) / np.mean(soxrs**2)) < SOXR_DB[rate]


def test_resampling_keeps_out_what_would_alias() -> None:
    time_ = np.arange(48_000) / 48_000
    tone = np.sin(2 * np.pi * 9_000 * time_).astype(np.float32)
    assert np.abs(resample(tone, 48_000)[200:-200]).max() < 1e-5


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 1_000, 4_411])
def test_resampling_rounds_the_length_as_promised(samples: int) -> None:
    assert len(resample(np.zeros(samples, np.float32), 44_100)) == (2 * samples * 160 + 441) // 882


@pytest.fixture(scope="module")
def exported_aasist_l(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from export import to_onnx

    folder = tmp_path_factory.mktemp("bundled")
    assert to_onnx.main(["--model", "aasist-l", "--out", str(folder)]) == 0
    return folder / "aasist-l.onnx"


@pytest.mark.slow
def test_resampled_clips_score_as_soxrs(shared: Path, exported_aasist_l: Path) -> None:
    from antispoof.audio import load_audio
    from runtimes import load

    detector = load(exported_aasist_l)
    clips = sorted((shared / "audio" / "asvspoof" / "dev").glob("*.flac"))[::12]
    assert clips
    for clip in clips:
        heard = load_audio(clip)[:CLIP_SAMPLES]
        for rate in (8_000, 44_100, 48_000):
            x = soxr.resample(heard, SAMPLE_RATE, rate, quality="VHQ").astype(np.float32)
            pair = resample(x, rate), soxr.resample(x, rate, SAMPLE_RATE, quality="HQ")
            scores = detector.score(np.stack([fit_length(y) for y in pair]))
            assert abs(scores[0] - scores[1]) < SCORE_TOLERANCE, (clip.name, rate)
