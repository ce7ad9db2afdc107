"""What is trained on: which recordings, how often, and what is done to them."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from antispoof.channel.conditions import CONDITIONS, CORRUPTED
from antispoof.errors import UserError
from antispoof.models import create_model
from tests.fit.recordings import voice
from tests.fit.small_recipe import REPOSITORY
from train import evaluation
from train.augment import Augmentation, random_crop, rms
from train.batches import Batches, draw_probabilities
from train.dataset import Row, check_apart, decode, may_train, read_rows, training_rows
from train.evaluation import degrade, score_under, score_ways
from train.recipe import AugmentRecipe, DataRecipe, read_recipe

pytestmark = pytest.mark.usefixtures("threads_as_before")


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


@pytest.mark.parametrize("label", ["spoof", "bonafide"])
def test_the_recipe_for_recordings_of_ones_own_takes_any(label: str) -> None:
    recipe = read_recipe(REPOSITORY / "train/configs/fscnn-own.yaml")
    assert may_train(Row("anywhere/a.wav", label, "train"), recipe.data)
    Augmentation(recipe.augment, [])  # asks for no recordings of noise or rooms


def test_a_batch_takes_no_longer_where_there_are_more_recordings() -> None:
    def batch_s(recordings: int) -> float:
        rows = [Row(str(n), ("spoof", "bonafide")[n % 2], "train") for n in range(recordings)]
        clips = [np.ones(4_000, np.int16)] * recordings
        augment = Augmentation(AugmentRecipe(), [])
        batches = Batches(rows, clips, DataRecipe(crop_samples=4_000), augment, seed=0)
        return min(timeit.repeat(lambda: batches.batch(0, 64), number=1, repeat=5))

    assert batch_s(200_000) < 3 * batch_s(200)  # 48 times when all chances were added up for each crop


def test_recordings_are_drawn_by_their_chances() -> None:
    rows = [Row(str(n), ("spoof", "bonafide")[n % 2], "train", dataset=str(n % 5 // 2)) for n in range(40)]
    recipe = DataRecipe(crop_samples=4_000, dataset_weights={"1": 7.0})
    batches = Batches(rows, [np.ones(10, np.int16)] * 40, recipe, lambda crop, _: crop, seed=3)
    generator = np.random.default_rng([3, 8])
    expected = []
    for number in range(64):
        members = range(number % 2, 40, 2)
        chances = draw_probabilities([rows[index] for index in members], recipe.dataset_weights)
        expected.append(generator.choice(members, p=chances))
    assert batches.batch(8, 64).clips.tolist() == expected


def test_decoded_recordings_take_no_name_in_their_folder(corpus: Path, tmp_path: Path) -> None:
    rows = read_rows(corpus / "manifest.tsv", corpus)[:4]
    here = decode(rows, iter)
    kept = decode(rows, iter, tmp_path)
    assert decode(rows[2:], iter, tmp_path)  # as another process may that is started by mistake
    assert decode([], iter, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    assert all(np.array_equal(one, other) for one, other in zip(here, kept, strict=True))


@pytest.mark.parametrize("in_folder", [False, True])
def test_all_recordings_that_cannot_be_used_are_told_at_once(
    in_folder: bool, corpus: Path, tmp_path: Path
) -> None:
    rows = read_rows(corpus / "manifest.tsv", corpus)[:6]
    damaged = [replace(row, folder=tmp_path) for row in rows[1:]]
    one = r"^'[^\n;]*' does not exist"
    with pytest.raises(UserError, match=rf"{one}$"):
        decode([rows[0], damaged[0]], iter, tmp_path if in_folder else None)
    with pytest.raises(
        UserError, match=rf"^5 recordings cannot be used: {one[1:]}(; {one[1:]}){{2}}; \.\.\.$"
    ):
        decode([rows[0], *damaged], iter, tmp_path if in_folder else None)


def test_a_folder_without_room_for_recordings_is_named(
    corpus: Path, tmp_path: Path, largest_file: Callable[[int], None]
) -> None:
    rows = read_rows(corpus / "manifest.tsv", corpus)
    largest_file(20_000)
    with pytest.raises(UserError, match=f"{tmp_path} cannot keep the decoded recordings: File too large"):
        decode(rows, iter, tmp_path)


def test_only_the_train_split_is_trained_on(corpus: Path) -> None:
    speech, noise, _ = training_rows(
        read_rows(corpus / "manifest.tsv"), DataRecipe(noise_folders=("noise/",))
    )
    assert {row.split for row in speech} == {"train"}
    assert len(speech) == 16
    assert [row.path for row in noise] == ["noise/hum.flac"]


def test_a_class_without_recordings_is_refused() -> None:
    rows = [Row("a", "spoof", "train", licence="BY-NC"), Row("b", "bonafide", "dev")]
    with pytest.raises(UserError, match="the list has no bonafide recording in the split train"):
        training_rows(rows, DataRecipe())
    rows.append(Row("c", "bonafide", "train"))
    with pytest.raises(UserError, match=r"they are in none of the recipe's data.folders, free/, mine/"):
        training_rows(rows, DataRecipe(folders=("free/", "mine/")))
    with pytest.raises(UserError, match=r"data.refuse_licences in the recipe holds words of their licences"):
        training_rows(rows, DataRecipe(refuse_licences=("BY-NC",)))


def test_copies_of_what_is_not_in_train_are_refused() -> None:
    rows = [Row("a", "spoof", "train"), Row("b", "bonafide", "train"), Row("c", "bonafide", "dev")]
    copies = [Row(f"{source}.0", "spoof", "train", source=source) for source in "bc"]
    assert len(training_rows(rows, DataRecipe(), copies[:1])[0]) == 3
    with pytest.raises(UserError, match=r"c.0 was made of c, which the list has in the split dev"):
        training_rows(rows, DataRecipe(), copies)


@pytest.mark.parametrize(("label", "split"), [("bonafide", "dev"), ("spoof", "train")])
def test_a_recording_under_two_names_has_one_label_and_split(label: str, split: str) -> None:
    rows = [Row("a", "bonafide", "train"), Row("again", "bonafide", "train"), Row("b", label, split)]
    one, other = np.arange(9, dtype=np.int16), np.arange(8, dtype=np.int16)
    check_apart(rows, [one, one, other])
    with pytest.raises(
        UserError, match=rf"again \(bonafide, train\) and b \({label}, {split}\) are the same"
    ):
        check_apart(rows, [other, one, one])
    with pytest.raises(UserError, match=r"^2 recordings are there twice: a .* and b .*; again .* and c .*"):
        check_apart([*rows, replace(rows[2], path="c")], [one, other, one, other])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path\tlabel\na\tspoof\n", "lacks the column 'split'"),
        ("path\tlabel\tsplit\na\tspoof\n", "2 columns where the header has 3"),
        ("path\tlabel\tsplit\na\tfake\ttrain\n", "the label 'fake'"),
        ("path\tlabel\tsplit\tlabel\n", "the column 'label' stands in the header twice"),
        ("path\tlabel\tsplit\na\tspoof\ttrain\na\tspoof\tdev\n", "3: a is in the list already, in line 2"),
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


def test_clips_are_degraded_alike_in_groups_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    clips = [np.rint(voice(generator, 0.3, False) * 32_767).astype(np.int16) for _ in range(6)]
    model = create_model("fscnn", clip_samples=6_000, channels=(8,) * 8).eval()
    together = score_ways(model, degrade(clips, CORRUPTED))
    monkeypatch.setattr(evaluation, "CLIPS_DEGRADED", 4)
    assert np.array_equal(score_under([model], clips, CORRUPTED)[0], together)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_degraded_clips_are_what_they_say(condition: str) -> None:
    speech = np.rint(voice(np.random.default_rng(1), 0.5, False) * 32_767).astype(np.int16)
    clip = np.pad(speech, 3_000)  # with silence to cut away
    ways = [changed for [changed] in degrade([clip], condition)]
    assert all(changed.dtype == np.int16 for changed in ways)
    assert [np.array_equal(changed, clip) for changed in ways] == [condition == "as recorded"] * len(ways)
    again = [changed for [changed] in degrade([clip], condition)]
    assert all(map(np.array_equal, ways, again))
