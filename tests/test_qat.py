"""Training for integers and pruning: what is rounded is what the quantizer rounds, and what goes is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from antispoof.audio import SAMPLE_RATE
from antispoof.channel import band_limit
from antispoof.checkpoint import load_model, save_checkpoint
from antispoof.errors import UserError
from antispoof.models import Detector, create_model
from antispoof.speechlike import speech_like, speech_like_batch
from quantize.calibration import Histogram, grid_of, observe
from quantize.weights import round_weights as stored_weights
from train import prune, qat
from train.fake_quant import (
    FakeQuantization,
    best_range,
    range_behind_selu,
    round_activations,
    round_weights,
)
from train.recipe import QuantizeRecipe

CLIP, CROP = 12_000, 8_000
# Widths as of the network for phones: some blocks keep theirs and add their input, some do not.
SMALL = {"clip_samples": CLIP, "channels": (16, 32, 32, 32, 48, 48, 64, 64)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lively(name: str = "fscnn", **config: object) -> Detector:
    """A network whose norms have statistics and whose channels differ."""
    torch.manual_seed(0)
    model = create_model(name, **(config or SMALL))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.get_buffer("running_mean").normal_(0, 0.1)
                module.get_buffer("running_var").uniform_(0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.from_numpy(speech_like_batch(4, CLIP))


# ---- rounding


def test_weights_are_rounded_as_the_quantizer_stores_them() -> None:
    weights = torch.randn(6, 3, 2, 3)
    weights[2] = 0
    stored = stored_weights(weights.numpy(), 0, 127)
    expected = stored.integers * stored.scale.reshape(-1, 1, 1, 1)
    assert np.allclose(round_weights(weights, 127).numpy(), expected, atol=1e-6)
    # A norm that is folded into a channel later changes none of its integers.
    factor = torch.tensor([0.1, -3.0, 1.0, 7.0, 0.5, -1.0]).view(-1, 1, 1, 1)
    assert torch.allclose(
        round_weights(weights * factor, 127), round_weights(weights, 127) * factor, atol=1e-5
    )


def test_activations_lie_on_the_quantizers_grid() -> None:
    x = torch.linspace(-2, 3, 999)
    grid = grid_of(-1.3, 2.6)
    expected = grid.round(x.numpy().astype(np.float64))
    rounded = round_activations(x, torch.tensor([-1.3, 2.6]), 255)
    assert np.abs(rounded.numpy() - expected).max() < 1e-5
    assert len(rounded.unique()) == 256


def test_the_range_is_about_as_good_as_the_quantizers() -> None:
    values = torch.randn(20_000) ** 3
    histogram = Histogram()
    histogram.add(values.numpy())
    best = observe(histogram, "mse").round(values.numpy().astype(np.float64)) - values.numpy()
    mine = (round_activations(values, best_range(values, 255), 255) - values).numpy()
    extremes = torch.stack([values.min(), values.max()])
    everything = (round_activations(values, extremes, 255) - values).numpy()
    assert np.square(mine).mean() < 1.1 * min(np.square(best).mean(), np.square(everything).mean())


def test_a_selu_has_the_step_of_what_it_reads() -> None:
    span = torch.tensor([-4.5, 9.0])
    x = round_activations(torch.randn(5_000) * 3, span, 255)
    exact = torch.nn.functional.selu(x)
    rounded = round_activations(exact, range_behind_selu(span, 255), 255)
    inside = (x >= 0) & (x < 11)  # what lies below -1.76 of a SELU's output is free for what is above
    assert torch.allclose(rounded[inside], exact[inside], atol=1e-5)
    assert (rounded - exact)[x < 0].abs().max() <= 0.5 * 13.5 / 255 * 1.06


def test_gradients_pass_where_nothing_is_cut_off() -> None:
    x = torch.tensor([-5.0, -0.3, 0.7, 5.0], requires_grad=True)
    round_activations(x, torch.tensor([-1.0, 1.0]), 255).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]
    weights = torch.randn(2, 3, 1, 1, requires_grad=True)
    round_weights(weights, 127).sum().backward()
    assert weights.grad is not None
    assert (weights.grad == 1).all()


@pytest.mark.parametrize("name", ["fscnn", "aasist-l"])
def test_a_dressed_network_rounds_and_keeps_its_weights(name: str, clips: torch.Tensor) -> None:
    config = SMALL if name == "fscnn" else {"clip_samples": CLIP}
    model = lively(name, **config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        exact = model.score(model(clips))
        errors = {}
        for bits in (16, 8):
            dressed = lively(name, **config)
            rounding = FakeQuantization(QuantizeRecipe(activation_bits=bits))
            rounding.dress(dressed)
            dressed.training = True  # the ranges follow; its parts, norms and dropout, are as in use
            dressed(clips)
            dressed.training = False
            errors[bits] = float((dressed.score(dressed(clips)) - exact).abs().mean())
    assert rounding.state_dict()
    assert not any(span.isnan().any() for span in rounding.state_dict().values())
    assert 0 < errors[16] < errors[8]
    assert dressed.state_dict().keys() == before.keys()


def test_what_cannot_be_rounded_is_refused() -> None:
    model = create_model("bimamba-sinc", clip_samples=16_000, channels=(8,) * 6, layers=1)
    model.sinc = torch.nn.Identity()
    with pytest.raises(UserError, match="no way is known to round bimamba-sinc"):
        FakeQuantization(QuantizeRecipe()).dress(model)


# ---- the command


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path\tlabel\tsplit"]
    for seed in range(12):
        split, label = "train" if seed < 8 else "dev", ("bonafide", "spoof")[seed % 2]
        wave = speech_like(seed, 12_000)
        wave = band_limit(wave, high_hz=3_000) if label == "spoof" else wave
        soundfile.write(folder / f"{seed}.wav", wave, SAMPLE_RATE)
        lines.append(f"{seed}.wav\t{label}\t{split}")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    recipe = {
        "model": {"name": "fscnn"},
        "data": {"crop_samples": CROP},
        "distill": {"temperature": 1.0, "weight": 1.0},
        "optimiser": {"learning_rate": 0.002, "weight_decay": 0.0},
        "schedule": {"steps": 30, "batch": 8, "ema": 0.8, "validate_every": 15, "save_every": 10},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_fine_tuning_brings_the_rounded_network_back_to_the_float_one(
    corpus: Path, clips: torch.Tensor, tmp_path: Path
) -> None:
    save_checkpoint(lively(), tmp_path / "float.safetensors")
    flags = ["--config", corpus / "recipe.yaml", "--audio", corpus, "--out", tmp_path / "out"]
    assert qat.main(list(map(str, [*flags, "--start", tmp_path / "float.safetensors"]))) == 0
    rows = np.loadtxt(tmp_path / "out/metrics.tsv", skiprows=1)
    # The loss is the divergence of the rounded network from the float one.
    assert rows[1, 1] < 0.8 * rows[0, 1]
    tuned, start = load_model(tmp_path / "out/final.safetensors"), lively()
    assert tuned.overrides["channels"] == SMALL["channels"]
    for name, value in start.state_dict().items():
        if "running" in name:
            assert torch.equal(tuned.state_dict()[name], value), "the exporter folds these"
    with pytest.raises(UserError, match="give --start"):
        qat.main(list(map(str, flags)))


# ---- pruning


def test_channels_that_do_nothing_are_the_ones_that_go(clips: torch.Tensor) -> None:
    model = lively()
    with torch.no_grad():  # half of each stage is dead
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d) and module.num_features > 2:
                dead = slice(1, None, 2)
                module.weight[dead] = 0
                module.bias[dead] = 0
                module.get_buffer("running_mean")[dead] = 0
        expected = model.score(model(clips))
        pruned = prune.prune(model, 0.5)
        assert pruned.overrides["channels"] == (8, 16, 16, 16, 24, 24, 32, 32)
        # Of a dead channel, the constant that the deviation is never below is left, and that is 0.01.
        rest = model.get_parameter("classify.weight")[:, 64:][:, 1::2].sum(1) * 0.01
        expected = expected - (rest[1] - rest[0])
        assert torch.allclose(pruned.score(pruned(clips)), expected, atol=1e-4)


def test_all_channels_are_kept_where_none_is_to_go() -> None:
    model = create_model("fscnn", **{**SMALL, "channels": (12, 20, 16, 16, 24, 24, 32, 32)})
    assert prune.prune(model, 1).overrides["channels"] == model.overrides["channels"]


def test_a_pruned_checkpoint_is_a_smaller_network_of_the_same_kind(
    clips: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(lively(), tmp_path / "whole.safetensors")
    flags = [
        str(tmp_path / "whole.safetensors"),
        "--keep",
        "0.6",
        "--out",
        str(tmp_path / "less.safetensors"),
    ]
    assert prune.main(flags) == 0
    pruned = load_model(tmp_path / "less.safetensors")
    assert "channels [8, 16" in capsys.readouterr().out
    assert sum(p.numel() for p in pruned.parameters()) < 0.6 * sum(p.numel() for p in lively().parameters())
    with torch.no_grad():
        assert torch.isfinite(pruned.score(pruned(clips))).all()
    with pytest.raises(UserError, match="--force"):
        prune.main(flags)
    with pytest.raises(UserError, match="only fscnn"):
        prune.prune(create_model("aasist-l"), 0.5)


def test_pruning_adds_no_residual_sum() -> None:
    # The widths differ now, and would agree if each were rounded for itself.
    model = lively(clip_samples=CLIP, channels=(16, 16, 16, 24, 24, 24, 24, 24))
    pruned = prune.prune(model, 0.5)
    before, after = ([block.keeps_shape for block in one.encoder[1:]] for one in (model, pruned))
    assert before == after
