"""Ways of taking speech apart and putting it together again: each keeps the words, and leaves its marks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from antispoof.speechlike import speech_like
from train import vocode
from train.resynthesis import HARMLESS, SPOOFING, cross, griffin_lim, mel_filters

SAMPLES = 12_000


@pytest.mark.parametrize("way", [*SPOOFING, *HARMLESS])
def test_a_copy_follows_its_original_and_its_seed(way: str) -> None:
    original = speech_like(3, SAMPLES)
    one, same, other = (vocode.resynthesise(original, way, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one is not None
    assert one.shape == original.shape
    assert np.array_equal(one, same)
    assert one.std() == pytest.approx(original.std(), rel=1e-4)
    # The loudness over time follows the original: the same words in the same places. Not closely, because
    # upsampling from 4 kHz loses the fricatives.
    envelopes = [np.square(x).reshape(-1, 400).mean(1) for x in (one, original)]
    assert np.corrcoef(envelopes)[0, 1] > 0.3
    if way in SPOOFING:
        assert np.abs(one - original).max() > 1e-3
        assert not np.array_equal(one, other)


def test_resampling_alone_changes_next_to_nothing_below_seven_kilohertz() -> None:
    original = speech_like(4, SAMPLES)
    copy = vocode.resynthesise(original, "resampled", np.random.default_rng(0))
    assert copy is not None
    difference, true = (np.abs(np.fft.rfft(x))[: int(SAMPLES * 7 / 16)] for x in (copy - original, original))
    assert np.sqrt(np.square(difference).sum() / np.square(true).sum()) < 0.02


def test_silence_and_scraps_are_left_alone() -> None:
    generator = np.random.default_rng(0)
    assert vocode.resynthesise(np.zeros(SAMPLES, np.float32), "world", generator) is None
    assert vocode.resynthesise(speech_like(0, SAMPLES)[:4_000], "world", generator) is None


@pytest.mark.parametrize("seed", range(6))  # every half is drawn
def test_a_crossed_copy_lies_between_its_parents(seed: int) -> None:
    generator = np.random.default_rng(seed)
    original = speech_like(5, SAMPLES)
    copied = vocode.resynthesise(original, "mel-phase-noise", np.random.default_rng(0))
    assert copied is not None
    crossed, half = cross(original, copied, generator)
    assert crossed.shape == original.shape
    assert half in ("phases", "magnitudes", "upper-band", "mean-magnitudes")
    for parent in (original, copied):
        assert np.abs(crossed - parent).max() > 1e-3
        envelopes = [np.square(x).reshape(-1, 400).mean(1) for x in (crossed, parent)]
        assert np.corrcoef(envelopes)[0, 1] > 0.5, "the same words in the same places"


def test_griffin_lim_comes_closer_with_every_round() -> None:
    def magnitude(x: np.ndarray) -> torch.Tensor:
        spectrum = torch.stft(
            torch.from_numpy(x), 512, 128, window=torch.hann_window(512), return_complex=True
        )
        return spectrum.abs()

    target = magnitude(speech_like(5, SAMPLES))
    phase = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) * 6.28
    errors = [
        float((magnitude(griffin_lim(target, phase, 128, SAMPLES, rounds)) - target).norm())
        for rounds in (0, 4, 32)
    ]
    assert errors[2] < 0.6 * errors[1] < 0.6 * errors[0]


def test_mel_filters_cover_the_band() -> None:
    filters = mel_filters(16_000, 1024, 80, 8_000)
    assert filters.shape == (80, 513)
    assert (filters >= 0).all()
    peaks = filters.argmax(dim=1)
    assert (peaks.diff() >= 0).all()
    assert (filters.sum(dim=0)[16:500] > 0).all()
