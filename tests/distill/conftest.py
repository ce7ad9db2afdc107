"""What tests of distillation share: a corpus, a teacher, and clips to ask it about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from antispoof.audio import SAMPLE_RATE
from antispoof.channel import band_limit
from antispoof.checkpoint import save_checkpoint
from antispoof.models import create_model
from antispoof.speechlike import speech_like
from tests.distill.crops import CLIP


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech-like clips; the spoofs lack the upper half of the band."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path\tlabel\tsplit"]
    for seed in range(12):
        split, label = "train" if seed < 8 else "dev", ("bonafide", "spoof")[seed % 2]
        wave = speech_like(seed, 9_000 + 500 * seed)
        wave = band_limit(wave, high_hz=3_000) if label == "spoof" else wave
        soundfile.write(folder / f"{seed}.wav", wave, SAMPLE_RATE)
        lines.append(f"{seed}.wav\t{label}\t{split}")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of another kind than the student: AASIST-L, whose clips are of fixed length."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    torch.manual_seed(5)
    save_checkpoint(create_model("aasist-l", clip_samples=CLIP, channels=(8,) * 6, sinc_bands=24), path)
    return path


@pytest.fixture
def clips() -> list[np.ndarray]:
    """Six clips, each longer than the one before."""
    return [(speech_like(seed, 8_000 + 3_000 * seed) * 32_767).astype(np.int16) for seed in range(6)]
