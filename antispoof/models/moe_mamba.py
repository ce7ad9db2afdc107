"""MoE-Mamba (Phase 3): gated fusion of WavLM and a sinc stream, Mamba with mixtures of experts.

The network of github.com/lux-liang/Robust-Audio-Deepfake-Evolution, ``MoEMambaASV`` with its sinc stream.

Glossary, with the sizes for a clip of 64,600 samples:

    T, S     frames of WavLM-Large and of the sinc stream, 201 and 29
    width    features of a frame after projection, 144
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from antispoof.errors import UserError
from antispoof.models.bimamba import DROPOUT, SincConfig, SincStream
from antispoof.models.detector import Detector, DetectorOutput
from antispoof.models.layers import wavlm
from antispoof.models.layers.attention_pool import AttentionPool
from antispoof.models.layers.fusion import stretch
from antispoof.models.layers.mamba import Mamba
from antispoof.models.layers.moe import SwitchMoE
from antispoof.models.layers.primitives import selu
from antispoof.models.layers.wavlm_pretrained import create_wavlm
from antispoof.models.registry import register

ALIGNMENTS = ("truncate", "stretch")


@dataclass(frozen=True)
class MoEMambaConfig(SincConfig):
    """Sizes of the network.

    The published network joins frame by frame two streams of different frame rates and cuts both to
    the shorter one: the first 0.6 s as WavLM hears it with 4 s of sinc frames. Its weights only mean
    something with that, so ``truncate`` is the default; ``stretch`` repeats the sinc frames as later
    phases do, and is the one to train with.
    """

    layers: int = 3  # in each direction
    wavlm: str = "large"  # see `antispoof.models.layers.wavlm_pretrained`
    held_layers: int = 18  # lowest layers of WavLM that training leaves alone
    experts: int = 4
    kept_experts: int = 2
    alignment: str = "truncate"


class GatedFusion(nn.Module):
    """A gate per frame and feature that weighs one stream against the other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width), nn.Sigmoid()
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        """Returns ``(batch, frames, width)`` for two streams of that shape."""
        gate = self.gate(torch.cat([one, two], dim=-1))
        return self.norm(gate * one + (1 - gate) * two)


class InputNorm(nn.Module):
    """Batch norm with one statistic for all features, then SELU."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x (batch, frames, width)`` normalised and activated."""
        return selu(self.norm(x.unsqueeze(1)).squeeze(1))


class MoEMambaLayer(nn.Module):
    """``x + Mamba(LN(x))``, then ``x + MoE(x)``, in one direction of time."""

    def __init__(self, config: MoEMambaConfig, reverse: bool) -> None:
        super().__init__()
        self.reverse = reverse
        self.norm = nn.LayerNorm(config.width)
        self.mamba = Mamba(config.width, config.states)
        self.moe = SwitchMoE(config.width, 4 * config.width, config.experts, config.kept_experts)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, frames, width)`` for ``x (batch, frames, width)``."""
        x = x + self.mamba(self.norm(x), self.reverse)
        return x + self.moe(x)


class MoEBackEnd(nn.Module):
    """Layers forwards and other layers backwards, each pooled over time, joined into one embedding."""

    def __init__(self, config: MoEMambaConfig) -> None:
        super().__init__()
        self.dropout_in, self.dropout_out = nn.Dropout(DROPOUT), nn.Dropout(DROPOUT)
        self.forwards = nn.Sequential(*(MoEMambaLayer(config, reverse=False) for _ in range(config.layers)))
        self.backwards = nn.Sequential(*(MoEMambaLayer(config, reverse=True) for _ in range(config.layers)))
        self.forwards_pool = AttentionPool(config.width)
        self.backwards_pool = AttentionPool(config.width)
        self.norm = nn.LayerNorm(config.width)
        self.join = nn.Linear(2 * config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, width)`` for ``x (batch, frames, width)``."""
        x = self.dropout_in(x)
        forwards = self.forwards_pool(self.norm(self.forwards(x)))
        backwards = self.backwards_pool(self.norm(self.backwards(x)))
        joined: Tensor = self.dropout_out(self.join(torch.cat([forwards, backwards], dim=1)))
        return joined


class MoEMamba(Detector):
    """The network of Phase 3."""

    config: MoEMambaConfig
    public_names: ClassVar = (
        (r"^ssl_model\.", "wavlm."),
        *wavlm.PUBLIC_NAMES,
        (r"^wavlm_proj\.", "project_wavlm."),
        (r"^sinc_proj\.", "project_sinc."),
        (r"^sinc_model\.first_bn\.", "sinc.encoder.norm."),
        (r"^sinc_model\.encoder\.(\d)\.conv_downsample\.", r"sinc.encoder.blocks.\1.shortcut."),
        (r"^sinc_model\.encoder\.(\d)\.bn2\.", r"sinc.encoder.blocks.\1.norm."),
        (r"^sinc_model\.encoder\.(\d)\.", r"sinc.encoder.blocks.\1."),
        (r"^fusion_gate\.", "fusion.gate."),
        (r"^fusion_norm\.", "fusion.norm."),
        (r"^first_bn\.", "input_norm.norm."),
        (r"^backbone\.(for|back)ward_layers\.(\d)\.mixer\.", r"back_end.\1wards.\2.mamba."),
        (r"^backbone\.(for|back)ward_layers\.(\d)\.norm\.", r"back_end.\1wards.\2.norm."),
        (r"^backbone\.(for|back)ward_moe\.(\d)\.gate\.w_gate\.", r"back_end.\1wards.\2.moe.gate."),
        (
            r"^backbone\.(for|back)ward_moe\.(\d)\.experts\.(\d)\.net\.0\.",
            r"back_end.\1wards.\2.moe.experts.\3.0.",
        ),
        (
            r"^backbone\.(for|back)ward_moe\.(\d)\.experts\.(\d)\.net\.3\.",
            r"back_end.\1wards.\2.moe.experts.\3.2.",
        ),
        (r"^backbone\.f_attention_pool\.", "back_end.forwards_pool.score."),
        (r"^backbone\.b_attention_pool\.", "back_end.backwards_pool.score."),
        (r"^backbone\.norm_f\.", "back_end.norm."),
        (r"^backbone\.LL\.", "back_end.join."),
        (r"^classifier\.", "classify."),
    )
    # As in `DualStreamBiMamba`.
    dead_weights: ClassVar = (r"^sinc_model\.encoder\.[1-5]\.bn1\.", wavlm.DEAD_WEIGHTS)

    def __init__(self, config: MoEMambaConfig) -> None:
        super().__init__()
        if config.alignment not in ALIGNMENTS:
            raise UserError(f"alignment is one of {', '.join(ALIGNMENTS)}, not {config.alignment!r}")
        if not 1 <= config.kept_experts <= config.experts:
            raise UserError(
                f"kept_experts must be in 1 to {config.experts}, the experts, not {config.kept_experts}"
            )
        self.config = config
        self.clip_samples = config.clip_samples
        self.wavlm = create_wavlm(config.wavlm, config.clip_samples)
        self.wavlm.hold(config.held_layers)
        self.sinc = SincStream(config)
        self.project_wavlm = nn.Linear(self.wavlm.model.sizes.width, config.width)
        self.project_sinc = nn.Linear(config.channels[-1], config.width)
        self.fusion = GatedFusion(config.width)
        self.input_norm = InputNorm()
        self.back_end = MoEBackEnd(config)
        self.classify = nn.Linear(config.width, 2)

    def forward(self, waveform: Tensor) -> DetectorOutput:
        """Returns logits ``(batch, 2)`` and embedding ``(batch, width)``."""
        self.check_length(waveform)
        fine = self.project_wavlm(self.wavlm(waveform))  # (batch, T, width)
        coarse = self.project_sinc(self.sinc(waveform))  # (batch, S, width)
        if self.config.alignment == "truncate":
            frames = min(fine.shape[1], coarse.shape[1])
            fine, coarse = fine[:, :frames], coarse[:, :frames]
        else:
            coarse = stretch(coarse, fine.shape[1])
        embedding = self.back_end(self.input_norm(self.fusion(fine, coarse)))
        return DetectorOutput(self.classify(embedding), embedding)


@register("moe-mamba", wavlm="tiny", clip_samples=16_000, channels=(16,) * 6, layers=2)
def moe_mamba(**overrides: Any) -> MoEMamba:
    """Mamba with mixtures of experts on WavLM and a sinc stream (Phase 3): 5.3 M parameters beside WavLM."""
    return MoEMamba(MoEMambaConfig(**overrides))
