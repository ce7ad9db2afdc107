"""What a step makes smaller and how: losses, mixup, adversary, portions, averages, arithmetic.

Most tests take a step or a few with a part of the recipe and without, and fail where it makes no difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antispoof.errors import UserError
from antispoof.models import BONAFIDE, SPOOF, DetectorOutput, create_model, small_config
from antispoof.speechlike import speech_like
from train.adversarial import Adversary
from train.augment import Augmentation
from train.batches import Batch, Batches
from train.dataset import Row
from train.loop import Run
from train.losses import additive_margin, check_loss, focal, label_loss, oc_softmax
from train.mapping import build
from train.mixup import Heard, mix
from train.objective import FromLabels
from train.optimiser import build_optimiser, kept_share, learning_rate
from train.recipe import (
    AdversarialRecipe,
    AugmentRecipe,
    DistillRecipe,
    LossRecipe,
    OptimiserRecipe,
    Recipe,
    ScheduleRecipe,
)

CROP = 6_000
SAME = 1e-6  # float32 sums in another order
FSCNN = {"name": "fscnn", "overrides": {"clip_samples": CROP, "channels": (8,) * 8}, "dropout": 0.0}
TINY = {
    "name": "bimamba-lora",
    "overrides": {"wavlm": "tiny", "clip_samples": 8_000, "channels": (8,) * 6, "layers": 1},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipe_of(**sections: dict[str, Any]) -> Recipe:
    plain: dict[str, dict[str, Any]] = {
        "model": FSCNN,
        "data": {"crop_samples": CROP},
        "optimiser": {"learning_rate": 0.01, "warmup_share": 0.0, "clip_norm": 1000.0},
        "schedule": {"steps": 1, "batch": 8, "ema": 0.0},
    }
    return build(
        Recipe, {**plain, **{name: {**plain.get(name, {}), **more} for name, more in sections.items()}}
    )


def run_of(recipe: Recipe, folder: Path) -> Run:
    rows = [Row(str(n), ("spoof", "bonafide")[n % 2], "train") for n in range(6)]
    clips = [(speech_like(n, 20_000) * 32_767).astype(np.int16) for n in range(6)]
    augment = Augmentation(recipe.augment, [])
    batches = Batches(rows, clips, recipe.data, augment, recipe.schedule.seed)
    run = Run(recipe, folder)
    run.hear(batches, lambda _: 0.5)
    return run


def trained(folder: Path, **sections: dict[str, Any]) -> dict[str, Tensor]:
    """Returns the weights after the recipe's steps."""
    run = run_of(recipe_of(**sections), folder)
    run.train(lambda steps, _: steps)
    return run.averaged().state_dict()


def change(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """One step of the plain recipe."""
    return trained(tmp_path_factory.mktemp("plain"))


# ---- losses


def test_focal_loss_is_the_papers() -> None:
    logits, labels = torch.tensor([[0.2, 1.0], [0.4, -0.3], [0.0, 40.0]]), torch.tensor([1, 1, 1])
    p = [1 / (1 + math.exp(0.2 - 1.0)), 1 / (1 + math.exp(0.4 + 0.3)), 1.0]
    expected = sum(-0.9 * (1 - q) ** 2.5 * math.log(q) for q in p) / 3
    assert float(focal(logits, labels, 0.9, 2.5)) == pytest.approx(expected, rel=1e-5)
    entropy = float(torch.nn.functional.cross_entropy(logits, 1 - labels))
    assert float(focal(logits, 1 - labels, 0.9, 0.0)) == pytest.approx(0.1 * entropy, rel=1e-5)


def test_one_class_softmax_wants_bona_fide_speech_near_the_centre() -> None:
    def loss(cosine: float, label: int) -> float:
        return float(oc_softmax(torch.tensor([cosine]), torch.tensor([label]), 20.0, (0.9, 0.2)))

    assert loss(0.7, BONAFIDE) == pytest.approx(math.log1p(math.exp(20 * 0.2)), rel=1e-5)
    assert loss(0.7, SPOOF) == pytest.approx(math.log1p(math.exp(20 * 0.5)), rel=1e-5)
    assert loss(1.0, BONAFIDE) < 0.2 < loss(0.8, BONAFIDE)
    assert loss(0.0, SPOOF) < 0.05 < loss(0.3, SPOOF)


def test_the_margin_is_taken_off_the_right_class() -> None:
    cosines = torch.tensor([[0.1, 0.5], [0.3, -0.2]])
    held = additive_margin(cosines, torch.tensor([1, 0]), 20.0, 0.9)
    assert torch.allclose(held, torch.tensor([[2.0, -8.0], [-12.0, -4.0]]))


@pytest.mark.parametrize("name", ["focal", "additive-margin"])
def test_a_loss_is_used_when_it_is_named(name: str, plain: dict[str, Tensor], tmp_path: Path) -> None:
    assert change(trained(tmp_path, loss={"name": name}), plain) > 1e-4


def test_one_class_softmax_trains_the_centre_of_the_model() -> None:
    torch.manual_seed(0)
    model = create_model("se-mamba", **TINY["overrides"])
    recipe = LossRecipe(name="oc-softmax")
    check_loss(model, recipe)
    output = DetectorOutput(torch.zeros(2, 2), torch.randn(2, 144))
    label_loss(model, output, torch.tensor([0, 1]), recipe).backward()
    gradient = model.get_parameter("oc_softmax_centre").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    with pytest.raises(UserError, match="scores by a cosine"):
        check_loss(create_model("fscnn"), recipe)


# ---- mixup


def test_a_mixture_is_the_sum_of_two_crops_and_of_their_labels() -> None:
    batch = Batch(torch.randn(4, 10), torch.tensor([0, 1, 0, 1]), torch.arange(4))
    heard = mix(batch, 1.0, seed=3, step=5)
    assert 0 < heard.share < 1
    expected = heard.share * batch.waveforms + (1 - heard.share) * batch.waveforms[heard.other_clips]
    assert torch.equal(heard.waveforms, expected)
    assert torch.equal(heard.other_labels, batch.labels[heard.other_clips])
    loss = heard.mean_over(lambda labels, _: labels.float().mean() + 10 * (labels is heard.labels))
    assert float(loss) == pytest.approx(0.5 + 10 * heard.share)
    again, next_step = mix(batch, 1.0, 3, 5), mix(batch, 1.0, 3, 6)
    assert torch.equal(again.waveforms, heard.waveforms)
    assert next_step.share != heard.share
    assert mix(batch, 0.0, 3, 5).waveforms is batch.waveforms


# ---- the adversary


@pytest.mark.parametrize(("model", "layer"), [(FSCNN, "spectrum"), (TINY, "wavlm.model.feature_projection")])
def test_the_push_has_the_length_epsilon_and_goes_uphill(model: dict[str, Any], layer: str) -> None:
    torch.manual_seed(0)
    network = create_model(model["name"], **model["overrides"]).eval()
    clips = torch.from_numpy(np.stack([speech_like(n, network.clip_samples) for n in range(2)]))
    labels = torch.tensor([0, 1])
    adversary = Adversary(network, AdversarialRecipe(0.5, layer))
    with adversary.listening():  # neither of these embeddings has weights that learn in front of it
        loss = label_loss(network, network(clips), labels, LossRecipe())
    loss.backward()
    assert torch.allclose(adversary.push().flatten(1).norm(dim=1), torch.full((2,), 0.5), atol=1e-4)
    with adversary.pushing():
        pushed = label_loss(network, network(clips), labels, LossRecipe())
    assert pushed.detach() > loss.detach()
    with torch.no_grad():  # no hook is left
        assert torch.equal(label_loss(network, network(clips), labels, LossRecipe()), loss.detach())


def test_attacks_leave_the_statistics_of_norms_alone(plain: dict[str, Tensor], tmp_path: Path) -> None:
    pushed = trained(tmp_path, adversarial={"epsilon": 5.0, "layer": "spectrum"})
    assert change(pushed, plain) > 1e-4
    norms = [name for name in plain if name.endswith("running_mean")]
    assert norms
    # The embedding's memory order differs, and with it the order of sums; a second update would double them.
    assert all(torch.allclose(pushed[name], plain[name], rtol=1e-3, atol=SAME) for name in norms)


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="fscnn has no part 'embedding'; there are spectrum, encoder"):
        Adversary(create_model("fscnn"), AdversarialRecipe(0.5, "embedding"))


# ---- portions, averages, rates, arithmetic


def test_portions_add_up_to_the_batch(tmp_path: Path) -> None:
    # With norms that hold their statistics, a crop's gradient does not depend on its neighbours.
    model = {"hold_norms": True}
    whole = trained(tmp_path, model=model)
    portions = trained(tmp_path, model=model, schedule={"accumulate": 4})
    assert change(whole, portions) < 1e-4  # of Adam's first step, 0.01 whatever the gradient
    with pytest.raises(UserError, match=r"multiple of schedule.accumulate"):
        run_of(recipe_of(schedule={"accumulate": 3}), tmp_path)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_weights_of_the_classes_count_in_each_portion_as_in_the_batch(label_smoothing: float) -> None:
    labels = torch.arange(8) % 2
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    recipe = LossRecipe(class_weights=(1.0, 9.0), label_smoothing=label_smoothing)
    loss = FromLabels(recipe)
    model = create_model("fscnn", **FSCNN["overrides"])

    def of(heard: Heard, logits: Tensor) -> float:
        return float(loss(model, heard, DetectorOutput(logits, logits)))

    plain = mix(Batch(logits, labels, labels), 0.0, 0, 0)
    theirs = nn.functional.cross_entropy(
        logits, labels, torch.tensor([1.0, 9.0]), label_smoothing=label_smoothing
    )
    assert of(plain, logits) == pytest.approx(float(theirs), rel=1e-6)
    mixed = mix(Batch(logits, labels, labels), 1.0, 0, 0)
    portions = [of(mixed.part(index, 4), part) for index, part in enumerate(logits.chunk(4))]
    assert any(len(set(part.tolist())) == 1 for part in mixed.other_labels.chunk(4))
    assert of(mixed, logits) == pytest.approx(sum(portions) / 4, rel=1e-6)


def test_held_norms_keep_their_statistics(plain: dict[str, Tensor], tmp_path: Path) -> None:
    name = "encoder.0.norm.running_mean"
    assert not trained(tmp_path, model={"hold_norms": True})[name].any()
    assert plain[name].any()


def test_the_last_weights_are_averaged_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    follow = Run._follow

    def spy(self: Run, step: int) -> None:
        follow(self, step)
        seen.append(self._model.get_parameter("classify.bias").detach().clone())

    monkeypatch.setattr(Run, "_follow", spy)
    kept = trained(tmp_path, schedule={"steps": 6, "swa_share": 0.5, "ema": 0.9})["classify.bias"]
    assert torch.allclose(kept, torch.stack(seen[3:]).mean(0), atol=SAME)
    assert not torch.allclose(kept, seen[-1], atol=1e-4)


def test_averaged_weights_have_norms_of_their_own(tmp_path: Path) -> None:
    schedule = {"steps": 6, "swa_share": 0.5, "ema": 0.9, "accumulate": 2}
    run = run_of(recipe_of(schedule=schedule), tmp_path)
    run.train(lambda steps, _: steps)
    average = run.averaged()
    weights = {name: value.clone() for name, value in average.state_dict().items()}
    heard = [run._batches.batch(step, 8).waveforms.chunk(2) for step in range(6)]
    torch.optim.swa_utils.update_bn((part for parts in heard for part in parts), average)
    assert change(average.state_dict(), weights) < 1e-5
    assert change(run._model.state_dict(), weights) > 1e-3  # the weights that went on learning


def test_the_average_follows_faster_at_first() -> None:
    recipe = ScheduleRecipe(steps=1_000, ema=0.99)
    assert [kept_share(step, recipe) for step in (0, 10, 999)] == [0.1, 11 / 20, 0.99]


def test_the_curve_may_end_above_nothing() -> None:
    recipe = OptimiserRecipe(learning_rate=1.0, warmup_share=0.0, final_share=0.1)
    assert learning_rate(0, 1_000, recipe) == pytest.approx(1.0)
    assert learning_rate(999, 1_000, recipe) == pytest.approx(0.1, abs=1e-4)


def test_adapters_have_their_own_rate() -> None:
    model = create_model(TINY["name"], **TINY["overrides"])
    optimiser = build_optimiser([model], OptimiserRecipe(learning_rate=1e-5, rates={"lora_": 1e-4}))
    adapters = {id(p) for name, p in model.named_parameters() if "lora_" in name}
    shares = {id(p): group["share"] for group in optimiser.param_groups for p in group["params"]}
    assert adapters
    assert all(shares[key] == (pytest.approx(10) if key in adapters else 1) for key in shares)
    assert len(shares) == sum(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_nearly_the_same(
    precision: str, plain: dict[str, Tensor], tmp_path: Path
) -> None:
    half = trained(tmp_path, schedule={"precision": precision})
    assert {value.dtype for value in half.values()} == {torch.float32, torch.int64}
    assert 0 < change(half, plain) < 0.05


def test_float16_resumes_with_its_scale(tmp_path: Path) -> None:
    recipe = recipe_of(schedule={"precision": "float16", "steps": 2, "save_every": 1})
    run = run_of(recipe, tmp_path)
    run.train(lambda steps, _: steps)
    again = Run(recipe, tmp_path)
    again._scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    again.resume()
    assert again._scaler.state_dict() == run._scaler.state_dict()
    assert again._scaler.state_dict()["scale"] != 4


# ---- all of it at once


def test_phase_6_uses_each_of_its_parts(tmp_path: Path) -> None:
    """A step of the tiny network comes out otherwise when any part of the recipe is left out."""
    parts: dict[str, dict[str, Any]] = {
        "model": TINY,
        "data": {"crop_samples": 8_000},
        "schedule": {"batch": 4},
        "augment": {"codec_share": 0.9, "rawboost_share": 0.8, "mixup_alpha": 1.0},
        "loss": {"name": "focal"},
        "adversarial": {"epsilon": 0.5, "layer": "wavlm.model.feature_projection"},
        "optimiser": {"rates": {"lora_": 0.02}},
    }
    start = run_of(recipe_of(**parts), tmp_path).averaged().state_dict()
    whole = trained(tmp_path, **parts)
    adapted = [name for name in whole if "lora_B" in name]
    assert adapted
    assert all((whole[name] != start[name]).any() for name in adapted)
    held = [name for name in whole if "wavlm" in name and "base_layer" in name]
    assert held
    assert all(torch.equal(whole[name], start[name]) for name in held)
    left_out: dict[str, dict[str, Any]] = {
        "codecs": {"augment": {**parts["augment"], "codec_share": 0.0}},
        "RawBoost": {"augment": {**parts["augment"], "rawboost_share": 0.0}},
        "mixup": {"augment": {**parts["augment"], "mixup_alpha": 0.0}},
        "focal": {"loss": {}},
        "FGM": {"adversarial": {}},
        "LoRA's rate": {"optimiser": {}},
    }
    for name, without in left_out.items():
        assert change(trained(tmp_path, **{**parts, **without}), whole) > 1e-4, f"{name} makes no difference"


def test_a_cosine_is_learnt_in_half_precision_too() -> None:
    model = create_model("se-mamba", **small_config("se-mamba"))
    recipe = LossRecipe(name="oc-softmax")
    output = model(model.example_input().repeat(2, 1))
    rounded = DetectorOutput(output.logits.bfloat16(), output.embedding.bfloat16())
    labels = torch.tensor([SPOOF, BONAFIDE])
    exact, coarse = (label_loss(model, one, labels, recipe) for one in (output, rounded))
    assert coarse.dtype == torch.float32
    assert coarse.item() == pytest.approx(exact.item(), rel=0.05)


@pytest.mark.parametrize("name", ["cross-entropy", "focal", "additive-margin"])
def test_a_cosine_is_learnt_by_its_own_loss_alone(name: str) -> None:
    with pytest.raises(UserError, match="scores by a cosine"):
        check_loss(create_model("se-mamba", **small_config("se-mamba")), LossRecipe(name=name))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LossRecipe(name="focal", label_smoothing=0.1), "mean nothing to focal"),
        (lambda: LossRecipe(name="oc-softmax", class_weights=(1.0, 9.0)), "mean nothing to oc-softmax"),
        (lambda: DistillRecipe(layer_weight=1.0), "go together"),
        (lambda: DistillRecipe(layer="encoder"), "go together"),
    ],
)
def test_a_word_that_would_do_nothing_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_rates_and_recordings_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="no parameter's name holds 'lora_'"):
        build_optimiser([nn.Linear(2, 2)], OptimiserRecipe(rates={"lora_": 1e-4}))
    for share, kind in (("noise_share", "noise"), ("room_share", "room")):
        with pytest.raises(UserError, match=f"the list has no {kind}"):
            Augmentation(AugmentRecipe(**{share: 0.1}), [])
