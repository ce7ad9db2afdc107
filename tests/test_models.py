"""What every registered model promises; a new model is tested by being registered."""

from __future__ import annotations

import copy
import importlib
import pkgutil

import pytest
import torch

from antispoof import models
from antispoof.errors import UserError
from antispoof.models import Detector, create_model, freeze, model_names, register, small_config
from antispoof.speechlike import speech_like_batch

# Freezing reorders float32 sums (norms folded into filters, biases added ahead); the largest
# intermediate values are about 1e2, so a few of their roundings (6e-6 each) reach the score.
FREEZE_TOLERANCE = 5e-5


@pytest.fixture(scope="module", params=model_names())
def model(request: pytest.FixtureRequest) -> Detector:
    torch.manual_seed(0)
    return create_model(request.param, **small_config(request.param)).eval()


@pytest.fixture(scope="module")
def clips(model: Detector) -> torch.Tensor:
    return torch.from_numpy(speech_like_batch(2, model.clip_samples))


def test_logits_embedding_and_score_have_their_shapes(model: Detector, clips: torch.Tensor) -> None:
    with torch.inference_mode():
        output = model(clips)
        score = model.score(output)
    assert output.logits.shape == (2, 2)
    assert output.embedding.ndim == 2
    assert score.shape == (2,)
    assert torch.isfinite(score).all()


def test_scores_do_not_depend_on_the_rest_of_the_batch(model: Detector, clips: torch.Tensor) -> None:
    with torch.inference_mode():
        together = model.score(model(clips))
        alone = torch.cat([model.score(model(clip[None])) for clip in clips])
    torch.testing.assert_close(together, alone, atol=FREEZE_TOLERANCE, rtol=0)


def test_freezing_keeps_the_function(model: Detector, clips: torch.Tensor) -> None:
    frozen = copy.deepcopy(model)
    settle_norms(frozen)
    with torch.inference_mode():
        before = frozen.score(frozen(clips))
    freeze(frozen)
    with torch.inference_mode():
        after = frozen.score(frozen(clips))
    torch.testing.assert_close(after, before, atol=FREEZE_TOLERANCE, rtol=0)
    assert not [m for m in frozen.modules() if isinstance(m, torch.nn.Dropout) and m.training]


def test_another_length_is_refused(model: Detector) -> None:
    if model.any_length:
        pytest.skip("takes clips of any length")
    with pytest.raises(ValueError, match=str(model.clip_samples)):
        model(torch.zeros(1, model.clip_samples - 1))


def test_gradients_reach_every_parameter(model: Detector, clips: torch.Tensor) -> None:
    trained = copy.deepcopy(model).train()
    idle = ["all"]
    for seed in range(3):  # at most: more than one draw where layer drop leaves layers out
        torch.manual_seed(seed)
        output = trained(clips)
        (output.logits.square().sum() + trained.score(output).sum()).backward()
        idle = [name for name, p in trained.named_parameters() if p.requires_grad and p.grad is None]
        if not idle:
            break
    assert not idle


def test_an_unknown_model_is_refused_with_the_list() -> None:
    with pytest.raises(UserError, match="aasist-l"):
        create_model("aasist-xl")


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="colour"):
        create_model("aasist", colour="red")


@pytest.mark.parametrize("name", ["aasist", "nobody's"])
def test_no_file_registers_a_name_that_is_not_listed_as_its_own(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        register(name)(lambda: None)  # type: ignore[arg-type, return-value]


def test_what_the_files_of_networks_register_is_listed() -> None:
    for file in pkgutil.iter_modules(models.__path__):
        importlib.import_module(f"antispoof.models.{file.name}")


def settle_norms(model: Detector) -> None:
    """Gives batch norms statistics and scales other than their neutral initial ones."""
    random = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for values, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                if values is not None:  # a norm may have neither scale nor statistics
                    values.data.copy_(low + (high - low) * torch.rand(values.shape, generator=random))


# The meta device computes nothing and refuses tensors of another, as a GPU does. It cannot leave autocast, as
# the scan of the Mamba networks does.
@pytest.mark.parametrize("name", [name for name in model_names() if "mamba" not in name])
def test_every_tensor_of_a_network_is_on_its_device(name: str) -> None:
    model = create_model(name, **small_config(name)).to("meta").train()
    output = model(torch.zeros(2, model.clip_samples, device="meta"))
    assert model.score(output).device.type == "meta"
