"""Recordings that the bundled detector is right about, and samples as a recorder writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from antispoof.audio import load_audio

# Clips that the bundled detector is right about by more than 1.5, of the training and dev splits.
CLIPS = {
    "genuine": ("asvspoof/dev/LA_D_3742070.flac", "asvspoof/train/LA_T_3060760.flac"),
    "synthetic": ("asvspoof/dev/LA_D_8384015.flac", "asvspoof/train/LA_T_3118857.flac"),
}


def real_clips(shared: Path) -> dict[str, np.ndarray]:
    return {path: load_audio(shared / "audio" / path) for paths in CLIPS.values() for path in paths}


def as_pcm16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.round(samples * 32_768), -32_768, 32_767).astype(np.int16)
