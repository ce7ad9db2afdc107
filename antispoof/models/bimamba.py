"""Dual-stream Bi-Mamba (Phases 5 and 6), and the same back end on the sinc stream alone.

The network of github.com/lux-liang/Robust-Audio-Deepfake-Evolution: WavLM hears speech, a sinc bank
hears the signal, the two are fused frame by frame and bidirectional Mamba blocks read the result.
Phases 5 and 6 differ in their training only. PN-BiMamba is that of arXiv 2508.09294.

Glossary, with the sizes for a clip of 64,600 samples:

    T, S     frames of WavLM-Large and of the sinc stream, 201 and 29
    width    features of a frame after fusion, 144
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from antispoof.models.detector import Config, Detector, DetectorOutput
from antispoof.models.layers import wavlm
from antispoof.models.layers.attention_pool import AttentionPool
from antispoof.models.layers.bimamba import BiMambaBlock
from antispoof.models.layers.fusion import DualStreamFusion
from antispoof.models.layers.lora import add_lora
from antispoof.models.layers.residual import WaveformEncoder, strongest
from antispoof.models.layers.wavlm_pretrained import create_wavlm
from antispoof.models.registry import register

DROPOUT = 0.1


@dataclass(frozen=True)
class SincConfig(Config):
    """Sizes of the sinc stream and of what follows the streams."""

    sinc_bands: int = 70
    sinc_taps: int = 129
    learnable_sinc: bool = False  # the published filters are constants
    channels: tuple[int, ...] = (32, 32, 64, 64, 64, 64)  # of the six residual blocks
    width: int = 144
    layers: int = 4
    states: int = 16  # N of Mamba, per channel


@dataclass(frozen=True)
class DualStreamConfig(SincConfig):
    """Sizes of the dual-stream network."""

    wavlm: str = "large"  # see `antispoof.models.layers.wavlm_pretrained`
    held_layers: int = 18  # lowest layers of WavLM that training leaves alone
    lora_rank: int = 0  # 0: no adapters
    lora_alpha: float = 32
    lora_dropout: float = 0.1
    se_reduction: int = 16


class SincStream(nn.Module):
    """The encoder of AASIST with its bands reduced to the strongest, one frame per 2,187 samples."""

    def __init__(self, config: SincConfig) -> None:
        super().__init__()
        self.encoder = WaveformEncoder(
            config.sinc_bands, config.sinc_taps, config.channels, config.learnable_sinc
        )
        self.encoder.check_clip(config.clip_samples)

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns ``(batch, S, channels)`` for ``waveform (batch, samples)``."""
        return strongest(self.encoder(waveform), dim=2).transpose(1, 2)


class BackEnd(nn.Module):
    """Bi-Mamba blocks, norm and attention pooling: frames to one embedding."""

    def __init__(self, config: SincConfig) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(BiMambaBlock(config.width, config.states) for _ in range(config.layers))
        )
        self.norm = nn.LayerNorm(config.width)
        self.pool = AttentionPool(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, width)`` for ``x (batch, frames, width)``."""
        return self.pool(self.norm(self.blocks(x)))


class DualStreamBiMamba(Detector):
    """WavLM and sinc stream, fused, Bi-Mamba, attention pooling."""

    config: DualStreamConfig
    public_names: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^wavlm_stream\.(model\.base_model\.)?", "wavlm."),
        *wavlm.PUBLIC_NAMES,
        (r"^sinc_stream\.first_bn\.", "sinc.encoder.norm."),
        (r"^sinc_stream\.encoder\.(\d)\.0\.conv_downsample\.", r"sinc.encoder.blocks.\1.shortcut."),
        (r"^sinc_stream\.encoder\.(\d)\.0\.bn2\.", r"sinc.encoder.blocks.\1.norm."),
        (r"^sinc_stream\.encoder\.(\d)\.0\.", r"sinc.encoder.blocks.\1."),
        (r"^fusion\.ln_wavlm\.", "fusion.fine.0."),
        (r"^fusion\.wavlm_proj\.", "fusion.fine.1."),
        (r"^fusion\.ln_sinc\.", "fusion.coarse.0."),
        (r"^fusion\.sinc_proj\.", "fusion.coarse.1."),
        (r"^fusion\.fusion_proj\.", "fusion.join."),
        (r"^fusion\.se_layer\.fc\.0\.", "fusion.weigh.squeeze."),
        (r"^fusion\.se_layer\.fc\.2\.", "fusion.weigh.excite."),
        (r"^backbone_layers\.", "back_end.blocks."),
        (r"^norm_f\.", "back_end.norm."),
        (r"^attention_pool\.", "back_end.pool.score."),
        (r"^classifier\.", "classify."),
    )
    # As in AASIST: the norm in front of blocks 1 to 5, whose result the public code overwrites.
    dead_weights: ClassVar = (r"^sinc_stream\.encoder\.[1-5]\.0\.bn1\.", wavlm.DEAD_WEIGHTS)

    def __init__(self, config: DualStreamConfig) -> None:
        super().__init__()
        self.config = config
        self.clip_samples = config.clip_samples
        self.wavlm = create_wavlm(config.wavlm, config.clip_samples)
        if config.lora_rank:
            add_lora(
                self.wavlm.model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout
            )
        else:
            self.wavlm.hold(config.held_layers)
        self.sinc = SincStream(config)
        self.fusion = DualStreamFusion(
            self.wavlm.model.sizes.width, config.channels[-1], config.width, config.se_reduction
        )
        self.back_end = BackEnd(config)
        self.dropout = nn.Dropout(DROPOUT)
        self.classify = nn.Linear(config.width, 2)

    def forward(self, waveform: Tensor) -> DetectorOutput:
        """Returns logits ``(batch, 2)`` and embedding ``(batch, width)``."""
        self.check_length(waveform)
        frames = self.fusion(self.wavlm(waveform), self.sinc(waveform))
        embedding = self.dropout(self.back_end(frames))
        return DetectorOutput(self.classify(embedding), embedding)


class LoraBiMamba(DualStreamBiMamba):
    """The dual-stream network with adapters on WavLM's queries and values."""

    public_names: ClassVar[tuple[tuple[str, str], ...]] = (
        *DualStreamBiMamba.public_names,
        # Early releases of peft left the adapted layer's own weights where they were.
        (r"\.([qv]_proj)\.(weight|bias)$", r".\1.base_layer.\2"),
    )


class SincBiMamba(Detector):
    """The back end on the sinc stream alone."""

    config: SincConfig

    def __init__(self, config: SincConfig) -> None:
        super().__init__()
        self.config = config
        self.clip_samples = config.clip_samples
        self.sinc = SincStream(config)
        self.project = nn.Sequential(
            nn.LayerNorm(config.channels[-1]), nn.Linear(config.channels[-1], config.width)
        )
        self.back_end = BackEnd(config)
        self.dropout = nn.Dropout(DROPOUT)
        self.classify = nn.Linear(config.width, 2)

    def forward(self, waveform: Tensor) -> DetectorOutput:
        """Returns logits ``(batch, 2)`` and embedding ``(batch, width)``."""
        self.check_length(waveform)
        embedding = self.dropout(self.back_end(self.project(self.sinc(waveform))))
        return DetectorOutput(self.classify(embedding), embedding)


@register("bimamba-lora", wavlm="tiny", clip_samples=16_000, channels=(16,) * 6, layers=2)
def bimamba_lora(**overrides: Any) -> DualStreamBiMamba:
    """Bi-Mamba on WavLM with LoRA and a sinc stream (Phases 5 and 6): 1,665,950 parameters beside WavLM."""
    config = DualStreamConfig(**{"lora_rank": 8, **overrides})
    return LoraBiMamba(config) if config.lora_rank else DualStreamBiMamba(config)


@register("bimamba-sinc", clip_samples=16_000, channels=(16,) * 6, layers=2)
def bimamba_sinc(**overrides: Any) -> SincBiMamba:
    """Bi-Mamba on the sinc stream alone, for phones: 1.47 M parameters, 0.85 M with two layers."""
    return SincBiMamba(SincConfig(**overrides))
