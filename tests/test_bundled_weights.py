"""What ships: each file of weights with its card, its notes, its licence and thresholds fitted as is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from antispoof.channel.conditions import FITTED
from antispoof.checkpoint import load_model, read_checkpoint, weights_hash
from antispoof.pretrained import BUNDLED, decisions_of
from train import card

REPOSITORY = Path(card.__file__).resolve().parents[1]
WEIGHTS = sorted(BUNDLED.glob("*.safetensors"))


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_the_card_is_of_these_weights_and_has_their_notes(path: Path) -> None:
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    metadata = read_checkpoint(path).metadata
    assert f"`{weights_hash(load_model(path))}`" in text
    assert f"Licence of the weights: {metadata['licence']}." in text
    assert (REPOSITORY / "train" / "configs" / f"{path.stem}.notes.md").read_text(
        encoding="utf-8"
    ).strip() in text
    assert path.name.removesuffix(".safetensors") in (REPOSITORY / "NOTICE").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_thresholds_were_fitted_to_speech_in_mishaps_and_stand_in_the_card(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    calibration, thresholds = decisions_of(checkpoint)
    assert calibration
    assert [point.name for point in thresholds] == ["eer", "min-dcf"]
    card_text = path.with_suffix(".md").read_text(encoding="utf-8")
    for fitted in (calibration, *thresholds):
        assert all(condition in fitted.data for condition in FITTED)
    assert all(f"`{point.name}`, {point.score:.3f}" in card_text for point in thresholds)
