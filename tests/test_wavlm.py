"""WavLM against Hugging Face's, and how its weights are found."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch

from antispoof.errors import UserError
from antispoof.models import freeze
from antispoof.models.layers.wavlm import WAVLM_SIZES, WavLM, WavLMSizes, WavLMStream
from antispoof.models.layers.wavlm_pretrained import create_wavlm, own_names, without_pretrained
from antispoof.speechlike import speech_like_batch

CLIP = 16_000
# float32 against float32 with sums in another order, through three layers; states are of the order of 1.
SAME_FUNCTION = 1e-5
POST_NORM = WavLMSizes(width=64, layers=2, heads=4, hidden=96, conv_width=32, pre_norm=False)


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that it imports
        package = pytest.importorskip("transformers")
        package.WavLMModel, package.WavLMConfig  # noqa: B018 - imported on first use
    return package


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.from_numpy(speech_like_batch(2, CLIP))


def their_model(transformers: ModuleType, sizes: WavLMSizes) -> Any:
    torch.manual_seed(0)
    config = transformers.WavLMConfig(
        hidden_size=sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.hidden,
        conv_dim=(sizes.conv_width,) * 7,
        do_stable_layer_norm=sizes.pre_norm,
        feat_extract_norm="layer" if sizes.pre_norm else "group",
    )
    model = transformers.WavLMModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and gates are 0 or 1 to begin with
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def their_states(model: Any, clips: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        output = model(clips, output_hidden_states=True)
    # transformers 5 gives the last state without the final norm, 4 gave it with the norm.
    return [*output.hidden_states[:-1], output.last_hidden_state]


def assert_same_states(own: WavLM, clips: torch.Tensor, expected: list[torch.Tensor]) -> None:
    with torch.inference_mode():
        states = list(own.hidden_states(clips))
    assert len(states) == len(expected)
    for state, wanted in zip(states, expected, strict=True):
        torch.testing.assert_close(state, wanted, atol=SAME_FUNCTION, rtol=SAME_FUNCTION)


@pytest.mark.parametrize("sizes", [WAVLM_SIZES["tiny"], POST_NORM], ids=["like Large", "like Base"])
def test_states_equal_those_of_transformers(
    transformers: ModuleType, sizes: WavLMSizes, clips: torch.Tensor
) -> None:
    theirs = their_model(transformers, sizes)
    own = WavLM(sizes, CLIP).eval()
    own.load_state_dict(own_names(theirs.state_dict()))
    expected = their_states(theirs, clips)
    assert_same_states(own, clips, expected)
    frozen = copy.deepcopy(own)
    freeze(frozen)
    assert_same_states(frozen, clips, expected)
    assert_same_states(own, clips, expected)  # freezing a copy leaves the original alone


def test_a_folder_in_hugging_face_form_is_loaded(
    transformers: ModuleType, clips: torch.Tensor, tmp_path: Path
) -> None:
    theirs = their_model(transformers, WAVLM_SIZES["tiny"])
    theirs.save_pretrained(tmp_path)
    stream = create_wavlm(str(tmp_path), CLIP).eval()
    expected = their_states(theirs, clips)
    assert_same_states(stream.model, clips, expected)
    # As a checkpoint of a task, with older names of weight norm.
    old = {"original0": "weight_g", "original1": "weight_v"}
    tensors = {
        "wavlm." + name.replace("parametrizations.weight.", "").replace(*item): value
        for name, value in theirs.state_dict().items()
        for item in [next((i for i in old.items() if i[0] in name), ("", ""))]
    }
    torch.save({**tensors, "head.weight": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert_same_states(create_wavlm(str(tmp_path), CLIP).eval().model, clips, expected)


def test_frames_of_a_clip() -> None:
    assert WAVLM_SIZES["large"].frames(64_600) == 201


@pytest.mark.parametrize(("name", "parameters"), [("large", 315_452_096), ("base-plus", 94_381_168)])
def test_published_sizes(transformers: ModuleType, name: str, parameters: int) -> None:
    with torch.device("meta"):
        own = create_wavlm(name, CLIP).model
        config = transformers.WavLMConfig(
            hidden_size=own.sizes.width,
            num_hidden_layers=own.sizes.layers,
            num_attention_heads=own.sizes.heads,
            intermediate_size=own.sizes.hidden,
            do_stable_layer_norm=own.sizes.pre_norm,
            feat_extract_norm="layer" if own.sizes.pre_norm else "group",
        )
        theirs = transformers.WavLMModel(config)
    assert sum(p.numel() for p in own.parameters()) == parameters
    shapes = {k: v.shape for k, v in own.state_dict().items()}
    assert shapes == {k: v.shape for k, v in own_names(theirs.state_dict()).items()}


def test_the_stream_is_the_weighted_sum_of_all_states(clips: torch.Tensor) -> None:
    torch.manual_seed(0)
    stream = WavLMStream(WAVLM_SIZES["tiny"], CLIP).eval()
    with torch.no_grad():
        stream.layer_weights.copy_(torch.randn(4))
        stacked = torch.stack(list(stream.model.hidden_states(clips)))
        expected = torch.einsum("lbtc,l->btc", stacked, torch.softmax(stream.layer_weights, 0))
        torch.testing.assert_close(stream(clips), expected, atol=SAME_FUNCTION, rtol=0)


def test_held_layers_are_not_trained(clips: torch.Tensor) -> None:
    torch.manual_seed(0)
    stream = WavLMStream(WAVLM_SIZES["tiny"], CLIP)
    stream.hold(2)
    stream(clips).square().sum().backward()
    trained = {name for name, p in stream.named_parameters() if p.grad is not None}
    assert {name.split(".")[3] for name in trained if ".layers." in name} <= {"2"}
    assert "layer_weights" in trained
    assert not [name for name in trained if "feature_" in name]


def test_training_is_random_and_inference_is_not(clips: torch.Tensor) -> None:
    torch.manual_seed(0)
    stream = WavLMStream(WAVLM_SIZES["tiny"], CLIP)
    with torch.no_grad():
        assert not torch.equal(stream(clips), stream(clips))
        stream.eval()
        assert torch.equal(stream(clips), stream(clips))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("no_hub")
def test_published_weights_out_of_reach_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WAVLM_SIZES, "large", POST_NORM)  # what it would take to build is not the point
    with pytest.raises(UserError, match=r"microsoft/wavlm-large.*large-random") as error:
        create_wavlm("large", CLIP)
    assert "\n" not in str(error.value)
    assert create_wavlm("large-random", CLIP).model.sizes == POST_NORM
    with without_pretrained():
        assert create_wavlm("large", CLIP).model.sizes == POST_NORM


def write_config(folder: Path, **changes: Any) -> None:
    sizes = WAVLM_SIZES["tiny"]
    config = {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.hidden,
        "conv_dim": [sizes.conv_width] * 7,
        "do_stable_layer_norm": True,
    }
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_folders_without_a_wavlm_are_one_line(tmp_path: Path) -> None:
    def refused(words: str, wavlm: str = str(tmp_path)) -> None:
        with pytest.raises(UserError, match=words) as error:
            create_wavlm(wavlm, CLIP)
        assert "\n" not in str(error.value)

    refused("large, base-plus, tiny.*folder", "lagre")
    refused("config.json")
    write_config(tmp_path, hidden_size="many")
    refused("neither the sizes")
    (tmp_path / "config.json").write_text("{}")
    refused("not the configuration of a WavLM")
    write_config(tmp_path)
    refused("holds neither model.safetensors")
    safetensors.torch.save_file({"encoder.layer_norm.weight": torch.ones(64)}, tmp_path / "model.safetensors")
    refused("not the weights of this WavLM")
