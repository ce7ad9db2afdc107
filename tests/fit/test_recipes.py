"""Recipes: the bundled ones are valid, and every mistake in one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from antispoof.errors import UserError
from tests.fit.small_recipe import RECIPE, REPOSITORY, changed, write_recipe
from train.recipe import read_recipe

pytestmark = pytest.mark.usefixtures("threads_as_before")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "train/configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_bundled_recipes_are_valid(path: Path) -> None:
    name = read_recipe(path).model.name
    assert path.stem == name or path.stem.startswith(name + "-")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (changed("schedule", "epochs", 3), "unknown key schedule.epochs"),
        (changed("schedule", "steps", "many"), "schedule.steps must be a whole number, not the text 'many'"),
        (changed("schedule", "steps", True), "schedule.steps must be a whole number, not True"),
        (changed("schedule", "steps", 0), "schedule.steps must be in 1 to 100000000, not 0"),
        (changed("schedule", "ema", 1), "schedule.ema must be in 0 to 0.99999, not 1"),
        (changed("optimiser", "learning_rate", "1e-3"), "YAML reads 1e-3 as text"),
        (changed("optimiser", "learning_rate", float("nan")), "optimiser.learning_rate must be in"),
        (changed("optimiser", "name", "sgd"), "optimiser.name must be one of adam, adamw, not 'sgd'"),
        (changed("schedule", "save_every", 0), "schedule.save_every must be at least 1, not 0"),
        (changed("augment", "gain_db", [1, 2, 3]), "augment.gain_db must be a list of 2, not of 3"),
        (changed("augment", "gain_db", [3, 1]), "augment.gain_db must run from low to high"),
        (changed("augment", "gain_db", 3), "augment.gain_db must be a list, not 3"),
        (changed("augment", "speed", [1.1, 0.9]), "augment.speed must run from low to high"),
        (changed("augment", "low_pass_hz", [7000, 3000]), "augment.low_pass_hz must run from low to high"),
        (
            {**RECIPE, "augment": {"codec_share": 0.3, "codecs": []}},
            "augment.codec_share needs augment.codecs",
        ),
        (changed("loss", "cosines", [0.2, 0.9]), "loss.cosines must run from high to low"),
        (changed("adversarial", "layer", "encoder"), "does nothing without adversarial.epsilon"),
        (changed("quantize", "activation_bits", 9), "quantize.activation_bits must be 8 or 16, not 9"),
        (
            changed("data", "dataset_weights", {"A": -1}),
            "data.dataset_weights must be in 0.01 to 100.0, not -1",
        ),
        ({"schedule": {"steps": 1}}, "the key model is missing"),
        ({**RECIPE, "model": {}}, "the key model.name is missing"),
        ({**RECIPE, "loss": [1]}, "loss must be a mapping of keys, not [1]"),
        (["a"], "the file must be a mapping of keys"),
    ],
)
def test_recipe_mistakes_are_named(tmp_path: Path, content: object, complaint: str) -> None:
    path = write_recipe(tmp_path, content)
    with pytest.raises(UserError) as raised:
        read_recipe(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert complaint in str(raised.value)


def test_unreadable_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_recipe(tmp_path / "none.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text("model: {name: [}")
    with pytest.raises(UserError, match="not YAML"):
        read_recipe(path)
    path.write_text("loss: {gamma: 1}\nmodel: {name: fscnn}\nschedule: {steps: 1}\nloss: {alpha: 0.5}\n")
    with pytest.raises(UserError, match=r"not YAML \(loss is there twice .* line 4, column 1"):
        read_recipe(path)
