"""Copies by Lyra V2's graphs: how frames go through them, and what is refused.

The graphs themselves are Google's and not here; these have their signatures, and are a transform codec.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from train import lyra, vocode

litert_torch = pytest.importorskip("litert_torch")

STEP = 1 / 8  # of the quantizer, whose indices are 0 to 15


def _cosines() -> Tensor:
    """Returns the first 64 of the 320 cosines of a frame, orthonormal, (64, 320): up to 1.6 kHz."""
    order, time = torch.arange(lyra.FEATURES)[:, None], torch.arange(lyra.FRAME)
    cosines = torch.cos(math.pi / lyra.FRAME * (time + 0.5) * order) * math.sqrt(2 / lyra.FRAME)
    return cosines / torch.where(order == 0, math.sqrt(2), 1.0)


class Encoder(nn.Module):
    def forward(self, input_audio: Tensor) -> Tensor:
        return (input_audio @ _cosines().T)[None]


class Decoder(nn.Module):
    def forward(self, input_audio: Tensor) -> Tensor:
        return (input_audio @ _cosines())[0]


class Quantizer(nn.Module):
    """Rounds each feature by itself, and sends as many as there are quantizers."""

    def forward(self, input_frames: Tensor, num_quantizers: Tensor) -> Tensor:
        indices = (input_frames[0, 0, : lyra.MOST_QUANTIZERS] / STEP + 8).round().clamp(0, 15)
        sent = torch.arange(lyra.MOST_QUANTIZERS) < num_quantizers
        return torch.where(sent, indices, -1)[:, None, None].to(torch.int32)


class Restorer(nn.Module):
    def forward(self, encoding_indices: Tensor) -> Tensor:
        indices = encoding_indices[:, 0, 0].float()
        features = torch.where(indices >= 0, (indices - 8) * STEP, 0.0)
        return nn.functional.pad(features, (0, lyra.FEATURES - lyra.MOST_QUANTIZERS))[None, None]


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model_coeffs")
    features = {"input_frames": torch.zeros(1, 1, 64), "num_quantizers": torch.tensor(46, dtype=torch.int32)}
    indices = {"encoding_indices": torch.zeros(46, 1, 1, dtype=torch.int32)}
    graphs = {
        lyra.ENCODER: {"serving_default": (Encoder(), {"input_audio": torch.zeros(1, 320)})},
        lyra.DECODER: {"serving_default": (Decoder(), {"input_audio": torch.zeros(1, 1, 64)})},
        lyra.QUANTIZER: {"encode": (Quantizer(), features), "decode": (Restorer(), indices)},
    }
    for name, signatures in graphs.items():
        converter = litert_torch.Converter()
        for called, (module, inputs) in signatures.items():
            converter.add_signature(called, module.eval(), sample_kwargs=inputs)
        with warnings.catch_warnings(action="ignore"):  # of the converter's own calls
            converter.convert().export(str(folder / name))
    return folder


def _projected(waveform: np.ndarray, step: float | None = None, kept: int = lyra.FEATURES) -> np.ndarray:
    cosines = _cosines().numpy()
    features = np.pad(waveform, (0, -len(waveform) % 320)).reshape(-1, 320) @ cosines.T
    if step:
        features = np.clip(np.rint(features / step), -8, 7) * step
    features[:, kept:] = 0
    return (features @ cosines).ravel()


def test_frames_go_through_encoder_and_decoder_in_order(codec: Path) -> None:
    speech = speech_like(0, 4_000)  # twelve and a half frames
    made = lyra.Lyra(codec).copy(speech, 0)
    assert made.shape == (13 * lyra.FRAME,)
    assert made == pytest.approx(_projected(speech), abs=1e-5)


@pytest.mark.parametrize("quantizers", [number for number in lyra.QUANTIZERS if number])
def test_as_many_quantizers_are_used_as_asked_for(codec: Path, quantizers: int) -> None:
    speech = speech_like(1, 3_200)
    made = lyra.Lyra(codec).copy(speech, quantizers)
    # A feature on the edge between two indices may fall to either side.
    expected = _projected(speech, STEP, quantizers)
    assert np.sqrt(np.mean((made - expected) ** 2)) < 0.02 * np.sqrt(np.mean(expected**2))


def test_copies_lie_over_their_originals_and_follow_the_seed(codec: Path) -> None:
    speech = speech_like(2, 12_000)
    first, again, other = (
        vocode.resynthesise(speech, str(codec), np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first is not None
    assert first.shape == speech.shape
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.corrcoef(first, speech)[0, 1] > 0.7


def test_what_is_not_lyra_is_refused(codec: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot read .*{lyra.ENCODER}"):
        lyra.load_lyra(tmp_path)
    for name in (lyra.ENCODER, lyra.QUANTIZER, lyra.DECODER):
        (tmp_path / name).write_bytes((codec / name).read_bytes())
    (tmp_path / lyra.DECODER).write_bytes(b"junk")
    with pytest.raises(UserError, match=f"{lyra.DECODER}: not a TFLite model"):
        lyra.load_lyra(tmp_path)
    (tmp_path / lyra.DECODER).write_bytes((codec / lyra.QUANTIZER).read_bytes())
    with pytest.raises(UserError, match=f"{lyra.DECODER} is not what Lyra V2 has .* takes no input_audio"):
        lyra.load_lyra(tmp_path)
