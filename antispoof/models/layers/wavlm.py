"""WavLM: self-supervised speech features, in a form that exports.

Chen et al., "WavLM: large-scale self-supervised pre-training for full stack speech processing", arXiv
2110.13900; gated relative position bias in sec. III-B. Parameters are named as in Hugging Face
``transformers``, so that its checkpoints load, but the package is not needed. What tracing trips
over there is settled here when the model is frozen: weight norm is folded, dropout and LayerDrop are
gone, and the position bias is a constant of the clip length.

Sizes of a clip of 64,600 samples: T = 201 frames, one every 320 samples (20 ms).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNELS = (10, 3, 3, 3, 3, 2, 2)  # of the seven convolutions from samples to frames
STRIDES = (5, 2, 2, 2, 2, 2, 2)
POSITION_TAPS = 128
POSITION_GROUPS = 16
BUCKETS, MAX_DISTANCE = 320, 800  # frames further apart than that share a bucket
GATE_FEATURES = 8
DROPOUT = 0.1
LAYER_DROP = 0.1

# Weight norm by the names that newer releases of torch give it, and what replaces hidden frames in
# pre-training only.
PUBLIC_NAMES = (
    (r"\bpos_conv_embed\.conv\.parametrizations\.weight\.original0$", "pos_conv_embed.conv.weight_g"),
    (r"\bpos_conv_embed\.conv\.parametrizations\.weight\.original1$", "pos_conv_embed.conv.weight_v"),
)
DEAD_WEIGHTS = r"(^|\.)masked_spec_embed$"


@dataclass(frozen=True)
class WavLMSizes:
    """What tells one WavLM from another."""

    width: int
    layers: int
    heads: int
    hidden: int  # of the feed-forward networks
    conv_width: int = 512
    pre_norm: bool = True  # Large: layer norms in front of attention and in every convolution

    def frames(self, samples: int) -> int:
        """Returns how many frames come out of ``samples``."""
        for kernel, stride in zip(KERNELS, STRIDES, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples


WAVLM_SIZES = {
    "large": WavLMSizes(width=1024, layers=24, heads=16, hidden=4096),
    "base-plus": WavLMSizes(width=768, layers=12, heads=12, hidden=3072, pre_norm=False),
    "tiny": WavLMSizes(width=64, layers=3, heads=4, hidden=128, conv_width=32),
}


class ConvLayer(nn.Module):
    """Convolution, norm and GELU; Base has a norm in its first layer only, one group per channel."""

    def __init__(self, index: int, sizes: WavLMSizes) -> None:
        super().__init__()
        width = sizes.conv_width
        self.conv = nn.Conv1d(width if index else 1, width, KERNELS[index], STRIDES[index], bias=False)
        self.layer_norm: nn.Module = nn.Identity()
        if sizes.pre_norm:
            self.layer_norm = nn.LayerNorm(width)
        elif index == 0:
            self.layer_norm = nn.GroupNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, conv_width, time')`` for ``x (batch, channels, time)``."""
        x = self.conv(x)
        if isinstance(self.layer_norm, nn.LayerNorm):
            x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        else:
            x = self.layer_norm(x)
        return F.gelu(x)


class FeatureExtractor(nn.Module):
    """Seven convolutions from the waveform to frames."""

    def __init__(self, sizes: WavLMSizes) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(*(ConvLayer(i, sizes) for i in range(len(KERNELS))))

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns ``(batch, T, conv_width)`` for ``waveform (batch, samples)``."""
        return self.conv_layers(waveform.unsqueeze(1)).transpose(1, 2)


class FeatureProjection(nn.Module):
    """Normalises the frames and brings them to the width of the transformer."""

    def __init__(self, sizes: WavLMSizes) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(sizes.conv_width)
        self.projection = nn.Linear(sizes.conv_width, sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, T, width)`` for ``x (batch, T, conv_width)``."""
        return self.projection(self.layer_norm(x))


class WeightNormConv(nn.Module):
    """Grouped convolution with half a kernel of padding, whose weights are a direction and a size per tap.

    torch's own weight norm keeps its state in a class that copies of a module share: removing it from
    a copy breaks the original.
    """

    weight: Tensor | None  # once frozen

    def __init__(self, width: int, taps: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        start = nn.Conv1d(width, width, taps, groups=groups)
        self.bias = start.bias
        self.weight_v = nn.Parameter(start.weight.detach())
        self.weight_g = nn.Parameter(self._length().detach())
        self.register_buffer("weight", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, width, time + 1)`` for ``x (batch, width, time)``, as the kernel is even."""
        weight = self._current_weight() if self.weight is None else self.weight
        return F.conv1d(x, weight, self.bias, padding=weight.shape[2] // 2, groups=self.groups)

    def freeze(self) -> None:
        """Makes the weights constant."""
        if self.weight is None:
            self.weight = self._current_weight()
            del self.weight_g, self.weight_v

    def _current_weight(self) -> Tensor:
        return self.weight_v * (self.weight_g / self._length())

    def _length(self) -> Tensor:
        return torch.linalg.vector_norm(self.weight_v, dim=(0, 1), keepdim=True)  # (1, 1, taps)


class PositionalConv(nn.Module):
    """A wide grouped convolution that tells each frame where it stands."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = WeightNormConv(width, POSITION_TAPS, POSITION_GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, T, width)`` for ``x (batch, T, width)``."""
        y = self.conv(x.transpose(1, 2))[:, :, :-1]  # the frame too many
        return F.gelu(y).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention with a relative position bias, gated per frame and head by the frame itself."""

    def __init__(self, sizes: WavLMSizes, owns_bias: bool) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (
            nn.Linear(sizes.width, sizes.width) for _ in range(4)
        )
        self.gru_rel_pos_const = nn.Parameter(torch.ones(1, sizes.heads, 1, 1))
        self.gru_rel_pos_linear = nn.Linear(sizes.width // sizes.heads, GATE_FEATURES)
        if owns_bias:  # the first layer, for all of them
            self.rel_attn_embed = nn.Embedding(BUCKETS, sizes.heads)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, position_bias: Tensor) -> Tensor:
        """Returns ``(batch, T, width)`` for ``x (batch, T, width)`` and a bias ``(1, heads, T, T)``."""
        query, key, value = (self._heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        affinity = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)  # (batch, heads, T, T)
        affinity = affinity + self._gate(self._heads(x)) * position_bias
        attended = self.dropout(torch.softmax(affinity, dim=-1)) @ value
        joined: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return joined

    def _heads(self, x: Tensor) -> Tensor:
        """Returns ``(batch, heads, T, width / heads)`` for ``x (batch, T, width)``."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _gate(self, x: Tensor) -> Tensor:
        """Returns how much the position counts, ``(batch, heads, T, 1)`` (sec. III-B, eq. 4 to 6)."""
        update, reset = self.gru_rel_pos_linear(x).unflatten(3, (2, -1)).sum(-1).sigmoid().chunk(2, dim=-1)
        return update * (reset * self.gru_rel_pos_const - 1) + 2


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, sizes: WavLMSizes) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(sizes.width, sizes.hidden)
        self.output_dense = nn.Linear(sizes.hidden, sizes.width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, T, width)`` for ``x (batch, T, width)``."""
        return self.dropout(self.output_dense(F.gelu(self.intermediate_dense(x))))


class EncoderLayer(nn.Module):
    """Attention and feed-forward network, each with its residual; norms before (Large) or after (Base)."""

    def __init__(self, sizes: WavLMSizes, owns_bias: bool) -> None:
        super().__init__()
        self.pre_norm = sizes.pre_norm
        self.attention = Attention(sizes, owns_bias)
        self.layer_norm = nn.LayerNorm(sizes.width)
        self.feed_forward = FeedForward(sizes)
        self.final_layer_norm = nn.LayerNorm(sizes.width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, position_bias: Tensor) -> Tensor:
        """Returns ``(batch, T, width)`` for ``x (batch, T, width)``."""
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.layer_norm(x), position_bias))
            return x + self.feed_forward(self.final_layer_norm(x))
        x = self.layer_norm(x + self.dropout(self.attention(x, position_bias)))
        return self.final_layer_norm(x + self.feed_forward(x))


class Encoder(nn.Module):
    """The transformer."""

    buckets: Tensor  # (T, T), which of the learned biases two frames have
    position_bias: Tensor | None  # (1, heads, T, T), once frozen

    def __init__(self, sizes: WavLMSizes, frames: int) -> None:
        super().__init__()
        self.pre_norm = sizes.pre_norm
        self.pos_conv_embed = PositionalConv(sizes.width)
        self.layer_norm = nn.LayerNorm(sizes.width)
        self.dropout = nn.Dropout(DROPOUT)
        self.layers = nn.ModuleList(EncoderLayer(sizes, owns_bias=i == 0) for i in range(sizes.layers))
        self.register_buffer("buckets", position_buckets(frames), persistent=False)
        self.register_buffer("position_bias", None, persistent=False)

    def hidden_states(self, x: Tensor) -> Iterator[Tensor]:
        """Yields what goes into the first layer and what comes out of each, ``(batch, T, width)``.

        The last of Large has gone through the final norm, as published; ``transformers`` 5 leaves it out.
        """
        x = x + self.pos_conv_embed(x)
        x = self.dropout(x if self.pre_norm else self.layer_norm(x))
        bias = self._learned_bias() if self.position_bias is None else self.position_bias
        yield x
        for index, layer in enumerate(self.layers, start=1):
            dropped = self.training and index > 1 and float(torch.rand(())) < LAYER_DROP
            x = x if dropped else layer(x, bias)
            yield self.layer_norm(x) if self.pre_norm and index == len(self.layers) else x

    def freeze(self) -> None:
        """Makes the position bias a constant."""
        if self.position_bias is None:
            self.position_bias = self._learned_bias()

    def _learned_bias(self) -> Tensor:
        embed = self.layers[0].get_submodule("attention.rel_attn_embed")
        return embed(self.buckets).permute(2, 0, 1).unsqueeze(0)


class WavLM(nn.Module):
    """Waveform to the hidden states of every layer."""

    def __init__(self, sizes: WavLMSizes, clip_samples: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.feature_extractor = FeatureExtractor(sizes)
        self.feature_projection = FeatureProjection(sizes)
        self.encoder = Encoder(sizes, sizes.frames(clip_samples))

    def hidden_states(self, waveform: Tensor) -> Iterator[Tensor]:
        """Yields ``layers + 1`` states ``(batch, T, width)`` of ``waveform (batch, samples)``."""
        return self.encoder.hidden_states(self.feature_projection(self.feature_extractor(waveform)))


class WavLMStream(nn.Module):
    """The hidden states of all layers, summed by learned weights.

    The sum grows as the layers run. Stacking the states first, as public code does, holds all of them:
    20.6 MB for Large and one clip.
    """

    def __init__(self, sizes: WavLMSizes, clip_samples: int) -> None:
        super().__init__()
        self.model = WavLM(sizes, clip_samples)
        self.layer_weights = nn.Parameter(torch.zeros(sizes.layers + 1))

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns ``(batch, T, width)`` for ``waveform (batch, samples)``."""
        weights = torch.softmax(self.layer_weights, dim=0).unbind()
        states = self.model.hidden_states(waveform)
        total = weights[0] * next(states)
        for weight, state in zip(weights[1:], states, strict=True):
            total = total + weight * state
        return total

    def hold(self, layers: int) -> None:
        """Excludes the convolutions, the projection and the lowest ``layers`` layers from training."""
        model = self.model
        for module in (model.feature_extractor, model.feature_projection, *model.encoder.layers[:layers]):
            module.requires_grad_(False)


def position_buckets(frames: int) -> Tensor:
    """Returns the bucket of every pair of frames, ``(frames, frames)``.

    Half of the buckets look back and half ahead; in each, small distances have a bucket of their own
    and larger ones share buckets that widen logarithmically up to `MAX_DISTANCE`.
    """
    one_way = BUCKETS // 2
    exact = one_way // 2
    position = torch.arange(frames)
    offset = position[None, :] - position[:, None]
    distance = offset.abs()
    octaves = torch.log(distance.float() / exact) / math.log(MAX_DISTANCE / exact)
    shared = (exact + octaves.clamp(min=0) * (one_way - exact)).long().clamp(max=one_way - 1)
    return torch.where(distance < exact, distance, shared) + one_way * (offset > 0)
