"""AASIST and AASIST-L: raw waveform to score through integrated spectro-temporal graph attention.

Jung et al., "AASIST: audio anti-spoofing using integrated spectro-temporal graph attention
networks", ICASSP 2022, arXiv 2110.01200. Figure 1 is `Aasist.forward` from left to right.

Glossary, with the sizes for a clip of 64,600 samples (AASIST / AASIST-L):

    C        channels of the encoder, 64 / 24
    F, T     bands and frames of the encoded map, 23 and 29
    S        spectral: nodes that stand for bands, 23, pooled to 11 / 9
    T        temporal: nodes that stand for frames, 29, pooled to 20 / 14
    D1, D2   features of a node after the first and the second graph layer, 64, 32 / 24, 32
    stack    the stack node of sec. 3.2, "master" in the public code
    MGO      max graph operation, sec. 3.2: two branches, then their maximum node by node
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from antispoof.models.detector import Config, Detector, DetectorOutput, Split
from antispoof.models.layers.graph import GraphAttention, GraphPool, HeterogeneousAttention
from antispoof.models.layers.residual import WaveformEncoder, strongest
from antispoof.models.registry import register


@dataclass(frozen=True)
class AasistConfig(Config):
    """Sizes of the network; the defaults are AASIST's."""

    sinc_bands: int = 70
    sinc_taps: int = 129
    channels: tuple[int, ...] = (32, 32, 64, 64, 64, 64)  # of the six residual blocks
    graph_features: tuple[int, int] = (64, 32)  # D1, D2
    spectral_ratio: float = 0.5  # share of nodes that pooling keeps
    temporal_ratio: float = 0.7
    branch_ratio: float = 0.5
    graph_temperature: float = 2.0
    branch_temperature: float = 100.0


class Branch(nn.Module):
    """One of the two branches of MGO: HS-GAL, pooling, HS-GAL with a residual (Figure 1, right)."""

    def __init__(self, config: AasistConfig) -> None:
        super().__init__()
        d1, d2 = config.graph_features
        self.stack = nn.Parameter(torch.randn(1, 1, d1))
        self.attend1 = HeterogeneousAttention(d1, d2, config.branch_temperature)
        self.pool_temporal = GraphPool(d2, config.branch_ratio)
        self.pool_spectral = GraphPool(d2, config.branch_ratio)
        self.attend2 = HeterogeneousAttention(d2, d2, config.branch_temperature)
        self.dropout = nn.Dropout(0.2)

    def forward(self, temporal: Tensor, spectral: Tensor) -> list[Tensor]:
        """Returns temporal, spectral and stack nodes ``(batch, nodes, D2)``."""
        temporal, spectral, stack = self.attend1(temporal, spectral, self.stack)
        nodes = self.pool_temporal(temporal), self.pool_spectral(spectral), stack
        refined = self.attend2(*nodes)
        return [self.dropout(x + y) for x, y in zip(nodes, refined, strict=True)]


class Aasist(Detector):
    """The network of Figure 1; `aasist` and `aasist-l` differ only in their sizes."""

    public_names: ClassVar = (
        (r"^first_bn\.", "encoder.norm."),
        (r"^encoder\.(\d)\.0\.conv_downsample\.", r"encoder.blocks.\1.shortcut."),
        (r"^encoder\.(\d)\.0\.bn2\.", r"encoder.blocks.\1.norm."),
        (r"^encoder\.(\d)\.0\.", r"encoder.blocks.\1."),
        (r"^pos_S$", "spectral_position"),
        (r"^GAT_layer_S\.", "spectral_attention."),
        (r"^GAT_layer_T\.", "temporal_attention."),
        (r"^pool_S\.", "spectral_pool."),
        (r"^pool_T\.", "temporal_pool."),
        (r"^master1$", "branches.0.stack"),
        (r"^master2$", "branches.1.stack"),
        (r"^HtrgGAT_layer_ST1(\d)\.", r"branches.0.attend\1."),
        (r"^HtrgGAT_layer_ST2(\d)\.", r"branches.1.attend\1."),
        (r"^pool_hS1\.", "branches.0.pool_spectral."),
        (r"^pool_hT1\.", "branches.0.pool_temporal."),
        (r"^pool_hS2\.", "branches.1.pool_spectral."),
        (r"^pool_hT2\.", "branches.1.pool_temporal."),
        (r"^out_layer\.", "classify."),
        # inside the graph layers
        (r"(pool\w*)\.proj\.", r"\1.gate."),
        (r"\.proj_type1\.", ".embed_first."),
        (r"\.proj_type2\.", ".embed_second."),
        (r"\.att_projM\.", ".stack_pair."),
        (r"\.att_weightM$", ".stack_weight"),
        (r"\.att_proj\.", ".pair."),
        (r"\.att_weight$", ".pair_weight"),
        (r"\.att_weight11$", ".pair_weight.0"),
        (r"\.att_weight22$", ".pair_weight.1"),
        (r"\.att_weight12$", ".pair_weight.2"),
        (r"\.proj_with_attM\.", ".stack_project.gathered."),
        (r"\.proj_without_attM\.", ".stack_project.own."),
        (r"\.proj_with_att\.", ".project.gathered."),
        (r"\.proj_without_att\.", ".project.own."),
        (r"(attention|attend\d)\.bn\.", r"\1.norm."),
    )
    # The norm in front of blocks 1 to 5, whose result the public code overwrites.
    dead_weights: ClassVar = (r"^encoder\.[1-5]\.0\.bn1\.",)

    def __init__(self, config: AasistConfig) -> None:
        super().__init__()
        self.config = config
        self.clip_samples = config.clip_samples
        channels, (d1, d2) = config.channels[-1], config.graph_features
        self.encoder = WaveformEncoder(config.sinc_bands, config.sinc_taps, config.channels)
        self.encoder.check_clip(config.clip_samples)
        self.spectral_position = nn.Parameter(torch.randn(1, self.encoder.bands, channels))
        self.spectral_attention = GraphAttention(channels, d1, config.graph_temperature)
        self.temporal_attention = GraphAttention(channels, d1, config.graph_temperature)
        self.spectral_pool = GraphPool(d1, config.spectral_ratio)
        self.temporal_pool = GraphPool(d1, config.temporal_ratio)
        self.branches = nn.ModuleList([Branch(config), Branch(config)])
        self.dropout = nn.Dropout(0.5)
        self.classify = nn.Linear(5 * d2, 2)

    def forward(self, waveform: Tensor) -> DetectorOutput:
        """Returns logits ``(batch, 2)`` and embedding ``(batch, 5 * D2)``."""
        self.check_length(waveform)
        return self.classify_map(self.encoder(waveform))

    def classify_map(self, encoded: Tensor) -> DetectorOutput:
        """Returns what the graph back end makes of the encoder's map ``(batch, C, F, T)``."""
        spectral = strongest(encoded, dim=3).transpose(1, 2)  # (batch, F, C)
        spectral = self.spectral_attention(spectral + self.spectral_position)  # (batch, F, D1)
        temporal = strongest(encoded, dim=2).transpose(1, 2)  # (batch, T, C)
        temporal = self.temporal_attention(temporal)  # (batch, T, D1)
        temporal, spectral = self.temporal_pool(temporal), self.spectral_pool(spectral)

        one, two = (branch(temporal, spectral) for branch in self.branches)
        temporal, spectral, stack = map(torch.maximum, one, two)  # MGO, (batch, nodes, D2)

        # Readout, sec. 3.3: maximum and mean of each kind of node, and the stack node.
        parts = [readout for x in (temporal, spectral) for readout in (strongest(x, dim=1), x.mean(dim=1))]
        embedding = torch.cat([*parts, stack[:, 0]], dim=1)  # (batch, 5 * D2)
        return DetectorOutput(self.classify(self.dropout(embedding)), embedding)

    def split(self, *, exact: bool) -> Split:
        """Returns the encoder, whose columns of 2187 samples know only their neighbours, and the back end."""
        geometry = self.encoder.geometry(self.clip_samples, exact=exact)
        return Split(self.encoder, MapToScore(self), geometry)


class MapToScore(nn.Module):
    """What follows the encoder."""

    def __init__(self, model: Aasist) -> None:
        super().__init__()
        self.model = model

    def forward(self, encoded: Tensor) -> Tensor:
        """Returns the score ``(batch,)`` of the map ``(batch, C, F, T)``."""
        return self.model.score(self.model.classify_map(encoded))


@register("aasist", clip_samples=16_000)
def aasist(**overrides: Any) -> Aasist:
    """AASIST: 297,866 published parameters, EER 0.83 % and min t-DCF 0.0275 on ASVspoof 2019 LA."""
    return Aasist(AasistConfig(**overrides))


@register("aasist-l", clip_samples=16_000)
def aasist_l(**overrides: Any) -> Aasist:
    """AASIST-L, the light one: 85,306 published parameters, EER 0.99 % and min t-DCF 0.0309."""
    light = {
        "channels": (32, 32, 24, 24, 24, 24),
        "graph_features": (24, 32),
        "spectral_ratio": 0.4,
        "temporal_ratio": 0.5,
        "branch_ratio": 0.7,
    }
    return Aasist(AasistConfig(**{**light, **overrides}))
