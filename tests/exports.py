"""What several files of tests export alike, and how one of them does it for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
MadeOnce = Callable[[str, Callable[[Path], object]], Path]  # name and what fills a folder, to that folder

# The bundled AASIST-L for clips of a second; the folder follows.
ONE_SECOND = [
    *("--checkpoint", str(REPOSITORY / "antispoof" / "checkpoints" / "aasist-l.safetensors")),
    *("--set", "clip_samples=16000", "--out"),
]
