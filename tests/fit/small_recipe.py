"""A recipe that trains the smallest network of the family in seconds, and changes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
# The smallest network of the family that learns the corpus of conftest.py in seconds.
SMALL = {"clip_samples": 12_000, "channels": [8, 8, 8, 8, 8, 8], "sinc_bands": 24}
RECIPE: dict[str, dict[str, Any]] = {
    "model": {"name": "aasist-l", "overrides": SMALL},
    "data": {"crop_samples": 6_000, "noise_folders": ["noise/"]},
    "augment": {"gain_db": [-6, 6], "noise_share": 0.5},
    "optimiser": {"learning_rate": 0.005},
    "schedule": {"steps": 14, "batch": 8, "ema": 0.9, "validate_every": 5, "save_every": 2},
}


def write_recipe(folder: Path, content: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def changed(section: str, key: str, value: object) -> dict[str, object]:
    """The recipe with another value under one key."""
    return {**RECIPE, section: {**RECIPE.get(section, {}), key: value}}
