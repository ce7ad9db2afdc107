"""Training from a recipe: what it refuses, what it draws, that it learns and survives being stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from antispoof.channel import band_limit
from antispoof.checkpoint import load_model, read_checkpoint
from antispoof.errors import UserError
from train import card, fit, session
from train.augment import Augmentation, random_crop, rms
from train.dataset import Batches, Row, draw_probabilities, may_train, read_rows, training_rows
from train.evaluation import CONDITIONS, degrade
from train.losses import cross_entropy
from train.optimiser import learning_rate
from train.recipe import AugmentRecipe, DataRecipe, LossRecipe, OptimiserRecipe, read_recipe
from train.states import saved_states

pytestmark = pytest.mark.usefixtures("threads_as_before")

REPOSITORY = Path(__file__).resolve().parents[1]
RATE = 16_000
# The smallest network of the family that learns the corpus below in seconds.
SMALL = {"clip_samples": 12_000, "channels": [8, 8, 8, 8, 8, 8], "sinc_bands": 24}
RECIPE: dict[str, dict[str, Any]] = {
    "model": {"name": "aasist-l", "overrides": SMALL},
    "data": {"crop_samples": 6_000, "noise_folders": ["noise/"]},
    "augment": {"gain_db": [-6, 6], "noise_share": 0.5},
    "optimiser": {"learning_rate": 0.005},
    "schedule": {"steps": 14, "batch": 8, "ema": 0.9, "validate_every": 5, "save_every": 2},
}


def voice(generator: np.random.Generator, seconds: float, smeared: bool) -> np.ndarray:
    """Returns pulses through a resonance; the spoofs lack the upper half of the band."""
    pulses = np.zeros(int(RATE * seconds))
    pulses[:: generator.integers(90, 160)] = 1
    response = np.exp(-np.arange(200) / 30) * np.cos(np.arange(200) * generator.uniform(0.2, 0.4))
    wave = np.convolve(pulses, response)[: len(pulses)] + 0.05 * generator.standard_normal(len(pulses))
    wave = band_limit(wave.astype(np.float32), high_hz=3_000) if smeared else wave
    return (0.2 * wave / np.abs(wave).max()).astype(np.float32)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    lines = ["path\tlabel\tsplit\tdataset\tattack\tlicence"]
    for split, count in (("train", 8), ("dev", 4), ("test", 4)):
        for label in ("bonafide", "spoof"):
            for index in range(count):
                path = f"{split}-{label}-{index}.flac"
                clip = voice(generator, generator.uniform(0.3, 1.2), label == "spoof")
                soundfile.write(folder / path, clip, RATE)
                attack = "A01" if label == "spoof" else "-"
                lines.append(f"{path}\t{label}\t{split}\tset-{index % 2}\t{attack}\tCC0")
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise/hum.flac", 0.1 * generator.standard_normal(RATE), RATE)
    lines.append("noise/hum.flac\tnoise\ttrain\thums\t-\tCC0")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_recipe(tmp_path, RECIPE)


def write_recipe(folder: Path, content: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def arguments(config: Path, corpus: Path, out: Path, *more: str) -> list[str]:
    return ["--config", str(config), "--audio", str(corpus), "--out", str(out), *more]


def changed(section: str, key: str, value: object) -> dict[str, object]:
    return {**RECIPE, section: {**RECIPE.get(section, {}), key: value}}


# ---- the recipe


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
        (changed("schedule", "steps", 0), "schedule.steps must be in 1 to 1e+08, not 0"),
        (changed("schedule", "ema", 1), "schedule.ema must be in 0 to 0.99999, not 1"),
        (changed("optimiser", "learning_rate", "1e-3"), "YAML reads 1e-3 as text"),
        (changed("optimiser", "learning_rate", float("nan")), "optimiser.learning_rate must be in"),
        (changed("optimiser", "name", "sgd"), "optimiser.name must be one of adam, adamw, not 'sgd'"),
        (changed("schedule", "save_every", 0), "schedule.save_every must be at least 1, not 0"),
        (changed("augment", "gain_db", [1, 2, 3]), "augment.gain_db must be a list of 2, not of 3"),
        (changed("augment", "gain_db", [3, 1]), "augment.gain_db must run from low to high"),
        (changed("augment", "gain_db", 3), "augment.gain_db must be a list, not 3"),
        (
            changed("data", "dataset_weights", {"A": -1}),
            "data.dataset_weights must be in 0.01 to 100, not -1",
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


# ---- which recordings, how often


@pytest.mark.parametrize(
    ("label", "path", "licence", "allowed"),
    [
        ("spoof", "free/a.flac", "MIT", True),
        ("spoof", "free/a.flac", "CC BY-SA 4.0 (some voices)", False),
        ("spoof", "demo/a.flac", "MIT", False),
        ("spoof", "free/a.flac", "none stated; source LJSpeech public domain", False),
        ("spoof", "free/a.flac", "repo CC BY-NC-ND 4.0; synthetic", False),
        ("bonafide", "demo/a.flac", "none stated; source LJSpeech public domain", True),
        ("bonafide", "demo/a.flac", "repo CC BY-NC-ND 4.0; VCTK CC BY 4.0", True),
        ("bonafide", "free/a.flac", "none stated", False),
        ("bonafide", "demo/a.flac", "repo MIT", False),
    ],
)
def test_the_bundled_recipe_trains_on_what_may_be_given_away(
    label: str, path: str, licence: str, allowed: bool
) -> None:
    recipe = read_recipe(REPOSITORY / "train/configs/aasist-l.yaml")
    assert may_train(Row(path, label, "train", licence=licence), recipe.data) == allowed


def test_only_the_train_split_is_trained_on(corpus: Path) -> None:
    speech, noise, _ = training_rows(
        read_rows(corpus / "manifest.tsv"), DataRecipe(noise_folders=("noise/",))
    )
    assert {row.split for row in speech} == {"train"}
    assert len(speech) == 16
    assert [row.path for row in noise] == ["noise/hum.flac"]


def test_a_class_without_recordings_is_refused() -> None:
    rows = [Row("a", "spoof", "train"), Row("b", "bonafide", "dev")]
    with pytest.raises(UserError, match="no bonafide recording of the train split"):
        training_rows(rows, DataRecipe())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path\tlabel\na\tspoof\n", "lacks the column 'split'"),
        ("path\tlabel\tsplit\na\tspoof\n", "2 columns where the header has 3"),
        ("path\tlabel\tsplit\na\tfake\ttrain\n", "the label 'fake'"),
    ],
)
def test_broken_lists_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "list.tsv"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_rows(path)


def test_data_sets_count_by_the_root_of_their_size() -> None:
    rows = [Row(str(i), "spoof", "train", "large") for i in range(9)] + [Row("x", "spoof", "train", "small")]
    chances = draw_probabilities(rows, {})
    assert chances[:9].sum() / chances[9] == pytest.approx(3)
    assert draw_probabilities(rows, {"small": 3.0})[9] == pytest.approx(0.5)
    assert draw_probabilities(rows, {"s*": 3.0})[9] == pytest.approx(0.5)
    assert draw_probabilities(rows, {"s*": 7.0, "small": 3.0, "*": 1.0})[9] == pytest.approx(0.5)


@pytest.fixture
def batches() -> Batches:
    return make_batches(seed=1)


def make_batches(seed: int) -> Batches:
    generator = np.random.default_rng(0)
    rows = [Row(str(i), label, "train") for i in range(3) for label in ("spoof", "bonafide")]
    # The sign of a clip's mean tells its class.
    clips = [
        generator.integers(1, 9_000, 9_000).astype(np.int16) * (1 if row.label == "bonafide" else -1)
        for row in rows
    ]
    recipe = DataRecipe(crop_samples=4_000)
    return Batches(rows, clips, recipe, Augmentation(AugmentRecipe(gain_db=(-9, 9)), []), seed)


def test_a_batch_depends_on_seed_and_step_alone(batches: Batches) -> None:
    first = batches.batch(7, 6)[0]
    batches.batch(3, 6)
    assert torch.equal(batches.batch(7, 6)[0], first)
    assert not torch.equal(batches.batch(8, 6)[0], first)
    assert not torch.equal(make_batches(seed=2).batch(7, 6)[0], first)


def test_batches_hold_both_classes_with_the_right_labels(batches: Batches) -> None:
    waveforms, labels, _ = batches.batch(0, 6)
    assert labels.sum() == 3
    assert torch.equal(waveforms.mean(dim=1) > 0, labels == 1)


# ---- what is done to a recording


def test_short_clips_repeat_and_long_ones_are_cut() -> None:
    generator = np.random.default_rng(0)
    assert random_crop(np.arange(3), 7, generator).tolist() == [0, 1, 2, 0, 1, 2, 0]
    crop = random_crop(np.arange(100), 10, generator)
    assert np.all(np.diff(crop) == 1)


def test_crops_avoid_pauses() -> None:
    clip = np.concatenate([np.zeros(8_000), np.full(8_000, 100)]).astype(np.int16)
    generator = np.random.default_rng(0)
    heard = sum(rms(random_crop(clip, 1_000, generator)) > 0 for _ in range(100))
    assert heard > 90  # about half by chance, 1 - 0.5 ** 4 with four tries


@pytest.mark.parametrize("condition", CONDITIONS)
def test_degraded_clips_are_what_they_say(condition: str) -> None:
    speech = np.rint(voice(np.random.default_rng(1), 0.5, False) * 32_767).astype(np.int16)
    clip = np.pad(speech, 3_000)  # with silence to cut away
    ways = [changed for [changed] in degrade([clip], condition)]
    assert all(changed.dtype == np.int16 for changed in ways)
    assert [np.array_equal(changed, clip) for changed in ways] == [condition == "as recorded"] * len(ways)
    again = [changed for [changed] in degrade([clip], condition)]
    assert all(map(np.array_equal, ways, again))


# ---- learning


def test_the_rate_warms_up_and_falls_to_nearly_nothing() -> None:
    recipe = OptimiserRecipe(learning_rate=1.0, warmup_share=0.1)
    rates = [learning_rate(step, 100, recipe) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_class_weights_decide_which_mistake_costs() -> None:
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])  # both called spoofs
    labels = torch.tensor([0, 1])
    even = cross_entropy(logits, labels, LossRecipe())
    assert cross_entropy(logits, labels, LossRecipe(class_weights=(1.0, 9.0))) > even
    assert cross_entropy(logits, labels, LossRecipe(class_weights=(9.0, 1.0))) < even


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that nothing stopped."""
    folder = tmp_path_factory.mktemp("run")
    assert fit.main(arguments(write_recipe(folder, RECIPE), corpus, folder / "out")) == 0
    return folder / "out"


def test_a_run_leaves_what_it_promises(finished: Path) -> None:
    assert load_model(finished / "best.safetensors").clip_samples == SMALL["clip_samples"]
    rows = (finished / "metrics.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == ["step", "5", "10", "14"]
    assert [path.name for path in saved_states(finished)] == [f"state-{n:08d}.pt" for n in (6, 8, 10, 12, 14)]
    data = json.loads((finished / "run.json").read_text())["data"]
    assert sum(row["recordings"] for row in data) == 17


def test_training_learns(corpus: Path, tmp_path: Path) -> None:
    schedule = {**RECIPE["schedule"], "validate_every": 20}
    config = write_recipe(tmp_path, {**RECIPE, "augment": {"gain_db": [-6, 6]}, "schedule": schedule})
    assert fit.main(arguments(config, corpus, tmp_path / "out", "--steps", "60")) == 0
    first, _, last = np.loadtxt(tmp_path / "out/metrics.tsv", skiprows=1)
    assert last[1] < 0.5 * first[1]  # the loss, which fell to 0.08 to 0.14 of its start over three settings
    assert last[2] == 0.0  # the dev EER of clips that differ as plainly as these


def stop_after(steps: int) -> object:
    """Returns a progress bar under which the run is interrupted before step number ``steps``."""

    def watch(numbers: Sequence[int], done: int) -> Iterator[int]:
        for number in numbers:
            if number == steps:
                raise KeyboardInterrupt
            yield number

    return watch


def test_a_stopped_run_goes_on_to_the_same_weights(
    finished: Path, corpus: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(session, "progress", stop_after(11))  # past a validation, between two states
        with pytest.raises(KeyboardInterrupt):
            fit.main(arguments(config, corpus, out))
    (out / "state-00000012.partial").write_bytes(b"cut short")
    assert fit.main(arguments(config, corpus, out, "--resume")) == 0
    assert (out / "metrics.tsv").read_bytes() == (finished / "metrics.tsv").read_bytes()
    for name in ("best.safetensors", "final.safetensors"):
        one, other = read_checkpoint(out / name), read_checkpoint(finished / name)
        assert one.metadata == other.metadata
        assert all(torch.equal(one.tensors[key], value) for key, value in other.tensors.items())


def test_another_recipe_cannot_resume(finished: Path, corpus: Path, config: Path) -> None:
    for more, key in ((["--steps", "15"], "recipe.schedule.steps"), (["--threads", "2"], "threads")):
        with pytest.raises(UserError, match=f"other {key}"):
            fit.main(arguments(config, corpus, finished, "--resume", *more))


def test_other_recordings_cannot_resume(finished: Path, corpus: Path, config: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer.tsv"
    lines = (corpus / "manifest.tsv").read_text().splitlines(keepends=True)
    fewer.write_text("".join(line for line in lines if not line.startswith("train-spoof-0")))
    with pytest.raises(UserError, match="other recordings"):
        fit.main(arguments(config, corpus, finished, "--resume", "--protocol", str(fewer)))


def test_runs_are_not_overwritten(finished: Path, corpus: Path, config: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a run already"):
        fit.main(arguments(config, corpus, finished))
    with pytest.raises(UserError, match="give one of them"):
        fit.main(arguments(config, corpus, finished, "--resume", "--force"))
    with pytest.raises(UserError, match="no state to resume from"):
        fit.main(arguments(config, corpus, tmp_path / "new", "--resume"))


def test_crops_longer_than_the_clip_are_refused(corpus: Path, tmp_path: Path) -> None:
    config = write_recipe(tmp_path, changed("data", "crop_samples", 16_000))
    with pytest.raises(UserError, match="crop_samples is 16000, but a clip of aasist-l has 12000"):
        fit.main(arguments(config, corpus, tmp_path / "out"))


def test_training_goes_on_from_given_weights(finished: Path, corpus: Path, tmp_path: Path) -> None:
    model = {"name": "aasist-l", "overrides": SMALL, "initial_weights": str(finished / "final.safetensors")}
    recipe = {**changed("optimiser", "learning_rate", 1e-8), "model": model}
    out = tmp_path / "out"
    assert fit.main(arguments(write_recipe(tmp_path, recipe), corpus, out, "--steps", "1")) == 0
    given, trained = (load_model(path / "final.safetensors") for path in (finished, out))
    change = max(
        float((a - b).detach().abs().max())
        for a, b in zip(given.parameters(), trained.parameters(), strict=True)
    )
    assert change < 1e-6  # one step of 1e-8


# ---- the card


def test_the_card_tells_what_was_trained_and_measured(finished: Path, corpus: Path, tmp_path: Path) -> None:
    out, notes = tmp_path / "small.safetensors", tmp_path / "notes.md"
    notes.write_text("Bad at everything.\n")
    argv = [str(finished), "--audio", str(corpus), "--out", str(out), "--licence", "CC0-1.0"]
    argv += ["--notes", str(notes)]
    assert card.main(argv) == 0
    text = out.with_suffix(".md").read_text()
    for expected in (
        "# aasist-l",
        "Bad at everything.",
        "CC0-1.0",
        "8 bonafide",
        "| test | as recorded | 4 | 4 |",
        card.CHOSEN,
    ):
        assert expected in text
    assert "From random weights" in text
    second = shutil.copytree(finished, tmp_path / "second")
    facts = json.loads((second / "run.json").read_text())
    facts["recipe"]["model"]["initial_weights"] = "/home/me/first/final.safetensors"
    (second / "run.json").write_text(json.dumps(facts))
    last = [str(second), *argv[1:4], str(tmp_path / "last.safetensors"), *argv[5:], "--weights", "final"]
    assert card.main(last) == 0
    text = (tmp_path / "last.md").read_text()
    assert card.CHOSEN not in text
    assert "From first/final.safetensors" in text
    assert "/home" not in text
    assert read_checkpoint(out).metadata["licence"] == "CC0-1.0"
    with pytest.raises(UserError, match="--force replaces it"):
        card.main(argv)
    with pytest.raises(UserError, match="cannot read"):
        card.main([str(tmp_path), *argv[1:], "--force"])
