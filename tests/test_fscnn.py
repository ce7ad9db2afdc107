"""The detector for phones: its spectrum, what it costs, and the shortcuts that it must not take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from antispoof.channel import band_limit
from antispoof.metrics import equal_error_rate
from antispoof.models import Detector
from antispoof.models.layers.fine_spectrum import FineSpectrum
from antispoof.models.layers.power_spectrum import FRAME, HOP, PowerSpectrum, compute_by_library
from antispoof.pretrained import load_pretrained
from antispoof.protocols import BONAFIDE, NOISE
from antispoof.speechlike import speech_like_batch
from train.dataset import decode, read_rows
from train.scoring import score_clips

MOST_MULTIPLY_ADDS = 60e6  # of a clip of four seconds
MOST_PARAMETERS = 150_000

# Scores are log-odds; a change of this size moves a probability by a twentieth of a percent at most.
SAME_SCORE = 2e-3
MOST_MORE_PASS = 0.2  # of the spoofs, of which a seventh pass as recorded


@pytest.fixture(scope="module")
def model() -> Detector:
    return load_pretrained(None, "fscnn").detector


@pytest.fixture(scope="module")
def clips(model: Detector) -> torch.Tensor:
    return torch.from_numpy(speech_like_batch(4, model.clip_samples))


def score(model: Detector, waveforms: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.score(model(waveforms))


@pytest.mark.parametrize("bins", [16, 240, 256])
@pytest.mark.parametrize("samples", [FRAME, FRAME + HOP - 1, 64_600])
@pytest.mark.parametrize("by_library", [False, True])
def test_two_convolutions_are_a_short_time_fourier_transform(
    bins: int, samples: int, by_library: bool
) -> None:
    waveform = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(FRAME, dtype=torch.float64)
    transform = torch.stft(waveform.double(), FRAME, HOP, window=window, center=False, return_complex=True)
    expected = transform[:, :bins].abs().square() / window.square().sum()
    spectrum = PowerSpectrum(bins)
    if by_library:
        compute_by_library(spectrum)
    power = spectrum(waveform)
    assert power.shape == (2, 1, bins, expected.shape[2])
    # Sums of 512 products in float32, relative to the largest bin.
    torch.testing.assert_close(power[:, 0].double(), expected, atol=2e-6 * float(expected.max()), rtol=0)


def test_the_network_hears_in_training_what_it_hears_in_use(clips: torch.Tensor) -> None:
    spectrum = FineSpectrum(240)
    exported = spectrum(clips)
    compute_by_library(spectrum)
    # Of the log spectrum, whose faintest bins come from differences of large numbers.
    torch.testing.assert_close(spectrum(clips), exported, atol=1e-2, rtol=0)


@pytest.mark.parametrize("bins", [0, 250, 272])
def test_other_numbers_of_bins_are_refused(bins: int) -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        PowerSpectrum(bins)


def test_it_is_small_enough_for_a_phone(model: Detector) -> None:
    assert sum(parameter.numel() for parameter in model.parameters()) <= MOST_PARAMETERS
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(model.example_input())
    assert 0 < counter.get_total_flops() / 2 <= MOST_MULTIPLY_ADDS


@pytest.mark.parametrize("gain_db", [-30, -12, 12])
def test_the_level_of_a_clip_says_nothing(model: Detector, clips: torch.Tensor, gain_db: float) -> None:
    louder = score(model, clips * 10 ** (gain_db / 20))
    torch.testing.assert_close(louder, score(model, clips), atol=SAME_SCORE, rtol=0)


def test_a_constant_offset_says_nothing(model: Detector, clips: torch.Tensor) -> None:
    torch.testing.assert_close(score(model, clips + 0.01), score(model, clips), atol=SAME_SCORE, rtol=0)


def test_what_resamplers_leave_at_the_top_of_the_band_says_nothing(
    model: Detector, clips: torch.Tensor
) -> None:
    time = np.arange(model.clip_samples) / 16_000
    whistle = torch.from_numpy(0.01 * np.sin(2 * np.pi * 7_800 * time)).float()
    # One part in ten thousand of the tone leaks below 7.5 kHz through the window's side lobes.
    torch.testing.assert_close(
        score(model, clips + whistle), score(model, clips), atol=20 * SAME_SCORE, rtol=0
    )
    inside = torch.from_numpy(0.01 * np.sin(2 * np.pi * 5_000 * time)).float()
    assert (score(model, clips + inside) - score(model, clips)).abs().min() > 20 * SAME_SCORE


@pytest.mark.parametrize("high_hz", [3_600, 7_000])
def test_a_narrow_band_is_no_sign_of_genuine_speech(shared: Path, model: Detector, high_hz: float) -> None:
    listed = read_rows(shared / "audio" / "manifest.tsv", shared / "audio")
    rows = [row for row in listed if row.split == "test" and row.label != NOISE]
    clips = decode(rows, iter)
    genuine = np.array([row.label == BONAFIDE for row in rows])
    scores = score_clips(model, clips)
    threshold = equal_error_rate(scores[genuine], scores[~genuine]).threshold
    heard = [band_limit(clip.astype(np.float32), high_hz=high_hz) for clip in clips]
    passed = score_clips(model, heard)[~genuine] > threshold
    assert passed.mean() <= (scores[~genuine] > threshold).mean() + MOST_MORE_PASS


def test_silence_has_a_finite_score(model: Detector) -> None:
    for waveform in (torch.zeros(1, model.clip_samples), torch.full((1, model.clip_samples), 0.5)):
        assert torch.isfinite(score(model, waveform)).all()
