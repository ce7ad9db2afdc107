"""What every test shares: where the real audio, weights and published scores lie, if anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, public checkpoints and published scores; skips where there is none."""
    folder = Path(os.environ.get("ANTISPOOF_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "audio" / "manifest.tsv").is_file():
        pytest.skip(f"needs the shared audio and weights (ANTISPOOF_SHARED or {folder.name}/ beside the checkout)")
    return folder
