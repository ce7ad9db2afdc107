"""The Mamba detectors: sizes, public checkpoints, scores, freezing and export."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from antispoof.audio import fit_length, load_audio
from antispoof.checkpoint import Checkpoint, load_model, recognise, save_checkpoint
from antispoof.errors import UserError
from antispoof.models import Detector, create_model
from antispoof.models.layers.wavlm import WAVLM_SIZES
from antispoof.scan import scan_form
from antispoof.speechlike import speech_like_batch
from antispoof.weight_names import map_names
from export.graph import ScoreGraph, trace

MODELS = ("bimamba-lora", "bimamba-sinc", "moe-mamba", "se-mamba")
CLIP = 16_000
SMALL: dict[str, Any] = {"clip_samples": CLIP, "channels": (8,) * 6, "layers": 1}
# Folded norms and merged adapters reorder float32 sums; scores are of the order of 1.
SAME_FUNCTION = 1e-5
SAME_SCORE = 1e-4  # what an exported file may differ by
DEAD_NORMS = 2 * (32 + 32 + 64 + 64 + 64)  # weights and biases that the public residual blocks overwrite


def small(name: str, **config: Any) -> Detector:
    """A model with the real parts, few and narrow, and with weights that all matter."""
    torch.manual_seed(0)
    wavlm = {} if name == "bimamba-sinc" else {"wavlm": "tiny"}
    model = create_model(name, **{**SMALL, **wavlm, **config}).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.02 * torch.randn_like(value))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.get_buffer("running_mean").normal_()
                module.get_buffer("running_var").uniform_(0.5, 2)
    return model


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return torch.from_numpy(speech_like_batch(2, CLIP))


@torch.inference_mode()
def scores(model: Detector, clips: Tensor) -> Tensor:
    return model.score(model(clips))


# Sizes


@pytest.mark.parametrize(
    ("name", "published", "more"),
    [("bimamba-lora", 1_665_950, 0), ("se-mamba", 1_665_950, 144), ("moe-mamba", 5_349_769, 0)],
)
def test_parameters_beside_wavlm_are_the_published_ones(name: str, published: int, more: int) -> None:
    """``more`` is the centre of OC-Softmax, which the public code counts with its loss."""
    with torch.device("meta"):
        model = create_model(name)
    assert count(model) - count(model.get_submodule("wavlm.model")) + DEAD_NORMS == published + more


def test_lora_adds_its_published_parameters() -> None:
    with torch.device("meta"):
        with_lora, without = (create_model("bimamba-lora", lora_rank=rank) for rank in (8, 0))
    assert count(with_lora) - count(without) == 786_432
    trained = [
        name for name, p in with_lora.get_submodule("wavlm.model").named_parameters() if p.requires_grad
    ]
    assert len(trained) == 2 * 2 * 24
    assert all("lora_" in name for name in trained)


def test_the_phone_model_is_small() -> None:
    assert 1.4e6 < count(create_model("bimamba-sinc")) < 1.5e6
    assert count(create_model("bimamba-sinc", layers=2)) < 1e6


# Public checkpoints: what the public code would save, from a model of ours

PUBLIC_DUAL_STREAM = (
    (r"^wavlm\.model\.", "wavlm_stream.model."),
    (r"^wavlm\.layer_weights", "wavlm_stream.layer_weights"),
    (r"conv\.weight_g$", "conv.parametrizations.weight.original0"),
    (r"conv\.weight_v$", "conv.parametrizations.weight.original1"),
    (r"^sinc\.encoder\.norm", "sinc_stream.first_bn"),
    (r"^sinc\.encoder\.blocks\.(\d)\.", r"sinc_stream.encoder.\1.0."),
    (r"(encoder\.\d\.0)\.norm\.", r"\1.bn2."),
    (r"(encoder\.\d\.0)\.shortcut\.", r"\1.conv_downsample."),
    (r"^fusion\.fine\.0", "fusion.ln_wavlm"),
    (r"^fusion\.fine\.1", "fusion.wavlm_proj"),
    (r"^fusion\.coarse\.0", "fusion.ln_sinc"),
    (r"^fusion\.coarse\.1", "fusion.sinc_proj"),
    (r"^fusion\.join", "fusion.fusion_proj"),
    (r"^fusion\.weigh\.squeeze", "fusion.se_layer.fc.0"),
    (r"^fusion\.weigh\.excite", "fusion.se_layer.fc.2"),
    (r"^back_end\.blocks\.", "backbone_layers."),
    (r"^back_end\.norm", "norm_f"),
    (r"^back_end\.pool\.score", "attention_pool"),
    (r"^classify", "classifier"),
)
PUBLIC_MOE = (
    (r"^wavlm\.", "ssl_model."),
    (r"conv\.weight_g$", "conv.parametrizations.weight.original0"),
    (r"conv\.weight_v$", "conv.parametrizations.weight.original1"),
    (r"^sinc\.encoder\.norm", "sinc_model.first_bn"),
    (r"^sinc\.encoder\.blocks\.(\d)\.norm\.", r"sinc_model.encoder.\1.bn2."),
    (r"^sinc\.encoder\.blocks\.(\d)\.shortcut\.", r"sinc_model.encoder.\1.conv_downsample."),
    (r"^sinc\.encoder\.blocks\.(\d)\.", r"sinc_model.encoder.\1."),
    (r"^project_(wavlm|sinc)", r"\1_proj"),
    (r"^fusion\.(gate|norm)", r"fusion_\1"),
    (r"^input_norm\.norm", "first_bn"),
    (r"^back_end\.(for|back)wards\.(\d)\.mamba", r"backbone.\1ward_layers.\2.mixer"),
    (r"^back_end\.(for|back)wards\.(\d)\.norm", r"backbone.\1ward_layers.\2.norm"),
    (r"^back_end\.(for|back)wards\.(\d)\.moe\.gate", r"backbone.\1ward_moe.\2.gate.w_gate"),
    (r"^back_end\.(for|back)wards\.(\d)\.moe\.experts\.(\d)\.0", r"backbone.\1ward_moe.\2.experts.\3.net.0"),
    (r"^back_end\.(for|back)wards\.(\d)\.moe\.experts\.(\d)\.2", r"backbone.\1ward_moe.\2.experts.\3.net.3"),
    (r"^back_end\.forwards_pool\.score", "backbone.f_attention_pool"),
    (r"^back_end\.backwards_pool\.score", "backbone.b_attention_pool"),
    (r"^back_end\.norm", "backbone.norm_f"),
    (r"^back_end\.join", "backbone.LL"),
    (r"^classify", "classifier"),
)


def published(model: Detector) -> dict[str, Tensor]:
    """The state_dict that the public code has for these weights, dead ones included, without the centre."""
    moe = model.name == "moe-mamba"
    tensors = {}
    for name, value in model.state_dict().items():
        for pattern, replacement in PUBLIC_MOE if moe else PUBLIC_DUAL_STREAM:
            name = re.sub(pattern, replacement, name)
        tensors[name] = value
    tensors.pop("oc_softmax_centre", None)
    for block in range(1, 6):
        norm = f"sinc_model.encoder.{block}.bn1." if moe else f"sinc_stream.encoder.{block}.0.bn1."
        tensors |= {norm + part: torch.ones(8) for part in ("weight", "bias", "running_mean", "running_var")}
        tensors[norm + "num_batches_tracked"] = torch.tensor(1)
    if any("lora_A" in name for name in tensors):
        tensors = {
            name.replace("wavlm_stream.model.", "wavlm_stream.model.base_model.model."): value
            for name, value in tensors.items()
        }
    return tensors


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As torch's AveragedModel saves it."""
    return {"n_averaged": torch.tensor(7), **{f"module.{name}": value for name, value in tensors.items()}}


def old_peft(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace(".base_layer.", "."): value for name, value in tensors.items()}


def bundle(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"epoch": 3, "model_state_dict": dict(tensors), "optimizer": {"state": {}, "param_groups": []}}


@pytest.mark.parametrize("name", ["bimamba-lora", "moe-mamba"])
@pytest.mark.parametrize("wrap", [dict, averaged, old_peft, bundle, lambda t: bundle(averaged(t))])
def test_public_checkpoints_give_the_same_scores(name: str, wrap: Any, clips: Tensor, tmp_path: Path) -> None:
    model, path = small(name), tmp_path / "epoch_3.pth"
    torch.save(wrap(published(model)), path)
    loaded = load_model(path, name, wavlm="tiny", **SMALL)
    assert torch.equal(scores(loaded, clips), scores(model, clips))


def test_adapters_that_were_merged_or_never_there(clips: Tensor, tmp_path: Path) -> None:
    model, path = small("bimamba-lora", lora_rank=0), tmp_path / "merged.pth"
    torch.save(published(model), path)
    loaded = load_model(path, "bimamba-lora", wavlm="tiny", lora_rank=0, **SMALL)
    assert torch.equal(scores(loaded, clips), scores(model, clips))


def test_the_centre_comes_from_beside_the_network(clips: Tensor, tmp_path: Path) -> None:
    model, path = small("se-mamba"), tmp_path / "phase4.pth"
    centre = model.state_dict()["oc_softmax_centre"]
    for content in (
        {**published(model), "criterion.center": centre},
        {**bundle(averaged(published(model))), "criterion": {"center": centre}},
        {**bundle(published(model)), "center": centre},
    ):
        torch.save(content, path)
        assert torch.equal(
            scores(load_model(path, "se-mamba", wavlm="tiny", **SMALL), clips), scores(model, clips)
        )


def refused(content: dict[str, Any], path: Path, words: str, name: str, **config: Any) -> None:
    torch.save(content, path)
    with pytest.raises(UserError, match=words) as error:
        load_model(path, name, wavlm="tiny", **{**SMALL, **config})
    assert "\n" not in str(error.value)


def test_nothing_is_loaded_by_luck(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    phase4, phase6 = published(small("se-mamba")), published(small("bimamba-lora"))
    centre = torch.ones(1, 144)
    refused(phase4, path, "lacks oc_softmax_centre", "se-mamba")
    refused({**phase6, "center": centre}, path, "lacks wavlm", "se-mamba")
    refused({**phase4, "center": centre}, path, "unknown center", "bimamba-lora", lora_rank=0)
    refused(phase4, path, "lacks .*lora_A", "bimamba-lora")
    refused(phase6, path, "lacks", "bimamba-lora", lora_rank=0)
    refused(phase6, path, "lacks", "moe-mamba")
    refused({**phase6, "extra.weight": centre}, path, "unknown extra.weight", "bimamba-lora")
    refused(phase6, path, "of shape", "bimamba-lora", lora_rank=4)
    refused(phase6, path, "lacks back_end.blocks.1", "bimamba-lora", layers=2)


def test_full_size_public_checkpoints_are_told_apart() -> None:
    """By names and shapes alone, so tensors without content will do."""

    def recognised(model: Detector, **more: Tensor) -> str:
        return recognise(Checkpoint(Path("public.pth"), published(model) | more))

    with torch.device("meta"):
        lora, plain = create_model("bimamba-lora"), create_model("bimamba-lora", lora_rank=0)
        assert recognised(create_model("moe-mamba")) == "moe-mamba"
        assert recognised(lora) == "bimamba-lora"
        assert recognised(plain, center=torch.empty(1, 144)) == "se-mamba"
        # Phase 4 without its centre or Phase 6 merged: their scores are not the same thing.
        with pytest.raises(UserError, match="none of the models"):
            recognised(plain)


def test_own_checkpoints_need_no_wavlm_from_elsewhere(
    clips: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WAVLM_SIZES, "large", WAVLM_SIZES["tiny"])
    path = tmp_path / "trained.safetensors"
    model = small("bimamba-lora", wavlm="large-random")
    model.overrides = {**model.overrides, "wavlm": "large"}  # as after training from the published weights
    save_checkpoint(model, path)
    assert torch.equal(scores(load_model(path), clips), scores(model, clips))


def test_own_names_are_no_public_names() -> None:
    """A model's own names pass unchanged, so that no pattern can turn one into another."""
    for name in MODELS:
        model = small(name)
        assert map_names(model, model.state_dict()).keys() == model.state_dict().keys()


# Function


def test_the_one_class_score_is_a_cosine(clips: Tensor) -> None:
    model = small("se-mamba")
    with torch.inference_mode():
        output = model(clips)
        expected = torch.cosine_similarity(output.embedding, model.state_dict()["oc_softmax_centre"])
        torch.testing.assert_close(model.score(output), expected)


@pytest.mark.parametrize("name", MODELS)
def test_freezing_keeps_the_function_and_the_original(name: str, clips: Tensor) -> None:
    model = small(name, learnable_sinc=True)
    before, state = scores(model, clips), copy.deepcopy(model.state_dict())
    frozen = ScoreGraph(model)
    names = list(frozen.state_dict())
    assert not [n for n in names if re.search(r"lora_|weight_[gv]$|low_khz", n)]
    with torch.inference_mode():
        torch.testing.assert_close(frozen(clips), before, atol=SAME_FUNCTION, rtol=0)
    assert torch.equal(scores(model, clips), before)
    assert all(torch.equal(value, state[n]) for n, value in model.state_dict().items())


def test_the_static_form_gives_the_same_scores(clips: Tensor) -> None:
    model = small("bimamba-sinc", layers=2)
    expected = scores(model, clips)
    with scan_form("static"):
        torch.testing.assert_close(scores(model, clips), expected, atol=SAME_FUNCTION, rtol=0)


def test_alignment_of_the_streams(clips: Tensor) -> None:
    published_alignment, mended = small("moe-mamba"), small("moe-mamba", alignment="stretch")
    assert not torch.allclose(scores(published_alignment, clips), scores(mended, clips))
    # Cut to 7 of 49 frames, the sinc stream alone hears the rest of the clip.
    with pytest.raises(UserError, match="truncate, stretch"):
        small("moe-mamba", alignment="crop")


@pytest.mark.parametrize("kept", [0, 5, -1])
def test_no_more_experts_are_kept_than_there_are(kept: int) -> None:
    with pytest.raises(UserError, match=f"kept_experts must be in 1 to 4, the experts, not {kept}"):
        small("moe-mamba", kept_experts=kept)


def test_importing_the_models_imports_no_optional_package() -> None:
    optional = "{'transformers', 'peft', 'huggingface_hub', 'mamba_ssm'}"
    networks = "[small_config(name) for name in model_names()]"
    code = (
        "import sys; from antispoof.models import model_names, small_config; "
        f"{networks}; print(*{optional} & {{*sys.modules}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.stdout.strip() == ""


# Export

MOST_NODES = {"bimamba-lora": 480, "bimamba-sinc": 180, "moe-mamba": 560, "se-mamba": 480}


# All parts of the other two are in these.
ALL_PARTS = ("bimamba-lora", "moe-mamba")


@pytest.fixture(
    scope="module",
    params=[name if name in ALL_PARTS else pytest.param(name, marks=pytest.mark.slow) for name in MODELS],
)
def exported(request: pytest.FixtureRequest) -> tuple[Detector, Any]:
    """A model, and its ONNX form for any number of clips."""
    model = small(request.param)
    with scan_form("onnx"), torch.no_grad():
        program = torch.onnx.export(trace(ScoreGraph(model), dynamic_batch=True), dynamo=True, verbose=False)
    assert program is not None
    return model, program.model_proto


def onnx_scores(proto: Any, clips: np.ndarray) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: clips})[0]


@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_the_exported_graph_gives_the_same_scores(exported: tuple[Detector, Any], clips: Tensor) -> None:
    model, proto = exported
    expected = scores(model, clips).numpy()
    for batch in (1, 2):
        np.testing.assert_allclose(
            onnx_scores(proto, clips[:batch].numpy()), expected[:batch], atol=SAME_SCORE
        )
    assert len(proto.graph.node) <= MOST_NODES[model.name]
    operators = {node.op_type for node in proto.graph.node}
    assert "Scan" in operators
    assert not operators & {"Loop", "If", "TopK", "ScatterND", "ScatterElements", "RandomUniform", "Resize"}


@pytest.mark.filterwarnings("ignore")
def test_the_exported_graph_scores_real_speech(exported: tuple[Detector, Any], shared: Path) -> None:
    model, proto = exported
    files = sorted((shared / "audio" / "asvspoof" / "dev").rglob("*.flac"))[:6]
    real = np.stack([fit_length(load_audio(file), CLIP) for file in files])
    expected = scores(model, torch.from_numpy(real)).numpy()
    np.testing.assert_allclose(onnx_scores(proto, real), expected, atol=SAME_SCORE)
