"""A teacher that was never told what a spoof is: DistillMOS, which says how natural speech sounds.

Stahl and Gamper, "Distillation and Pruning for Scalable Self-Supervised Representation-Based Speech Quality
Assessment", arXiv 2502.05356. The weights, ``distill_mos_v7.pt``, lie in the Python package ``distillmos``
0.9.1 (MIT). That needs torchaudio, which does not load beside every PyTorch, so the network stands here; 59
recordings are rated as by the package, to 3e-7.

Of real speech in joined pieces, or filtered into another voice, it thinks little, where detectors taught by
copies of speech err most: on A04 and A06 of ASVspoof 2019. A small student learns its ratings of a thousand
clips by heart and little else, so let it hear many judged (train/transfer_set.py). The package repeats what
is shorter than 7.68 s; this one hears a clip as short as it is, which costs less.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoof.checkpoint import Checkpoint, load_weights
from antispoof.errors import UserError
from antispoof.models.detector import Config, Detector, DetectorOutput

HEARD = 122_880  # samples, 7.68 s, of its own clip
FRAME, HOP = 320, 160
COMPRESSION = 0.3  # exponent of magnitudes
FEATURES, HEADS, LAYERS = 200, 8, 7
CHANNELS = (64, 64, 128, 256, 256, 256)
STRIDES = ((1, 1), (2, 1), (2, 1), (2, 1), (2, 1), (2, 2))  # of frequency and time
NATURAL = 0.7  # log-odds of a rating between that of bona fide speech, 1.0, and of copies of it, 0.2 and more
OWN = "transformer_pool_attn."  # what no other checkpoint's names begin with


@dataclass(frozen=True)
class DistillMosConfig(Config):
    """Nothing but the length of the clips, of which there are positions for `HEARD`."""

    clip_samples: int = HEARD


class DistillMos(Detector):
    """Compressed complex spectrogram, convolutions, transformer, attentive mean; the rating as log-odds."""

    config: DistillMosConfig
    positions: Tensor
    public_names = (
        (r"^cnn\.cnn\.", "convolutions."),
        (r"^transformer_pool_attn\.norm_input\.", "norm_maps."),
        (r"^transformer_pool_attn\.transformer\.norm\.", "norm_input."),
        (r"^transformer_pool_attn\.transformer\.position_encoding\.pe$", "positions"),
        (r"^transformer_pool_attn\.transformer\.linear_proj\.", "narrow."),
        (r"^transformer_pool_attn\.transformer\.transformer_encoder\.", "transformer."),
        (r"^transformer_pool_attn\.norm_trans\.", "norm_output."),
        (r"^transformer_pool_attn\.pool\.linear1\.", "attention.0."),
        (r"^transformer_pool_attn\.pool\.linear2\.", "attention.2."),
        (r"^transformer_pool_attn\.pool\.linear3\.", "rate."),
    )

    def __init__(self, config: DistillMosConfig) -> None:
        super().__init__()
        self.config, self.clip_samples, self.name = config, config.clip_samples, "DistillMOS"
        layers: list[nn.Module] = []
        bins, channels = FRAME // 2 + 1, 2
        for width, stride in zip(CHANNELS, STRIDES, strict=True):
            layers += [nn.Conv2d(channels, width, 3, stride, padding=(0, 1)), nn.LeakyReLU(0.1)]
            bins, channels = (bins - 3) // stride[0] + 1, width
        self.convolutions = nn.Sequential(*layers)
        self.norm_maps, self.norm_input = nn.BatchNorm1d(channels * bins), nn.BatchNorm1d(channels * bins)
        self.narrow = nn.Linear(channels * bins, FEATURES)
        layer = nn.TransformerEncoderLayer(FEATURES, HEADS, 2 * FEATURES, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, LAYERS)
        self.register_buffer("positions", torch.zeros(1, HEARD // (2 * HOP), FEATURES))
        self.norm_output = nn.BatchNorm1d(FEATURES)
        self.attention = nn.Sequential(
            nn.Linear(FEATURES, 2 * FEATURES), nn.ReLU(), nn.Linear(2 * FEATURES, 1)
        )
        self.rate = nn.Linear(FEATURES, 1)

    def forward(self, waveform: Tensor) -> DetectorOutput:
        """Returns logits ``(batch, 2)``, whose difference is the rating less `NATURAL`, and an embedding."""
        self.check_length(waveform)
        rating, embedding = self.rating(waveform)
        return DetectorOutput(torch.stack([torch.zeros_like(rating), rating - NATURAL], dim=1), embedding)

    def rating(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Returns how natural speech sounds, as log-odds ``(batch,)``, and its mean frame ``(batch, 200)``.

        The probability of the log-odds, 0 to 1, stands for a mean opinion score from 1 to 5.
        """
        level = waveform / (waveform.abs().amax(dim=1, keepdim=True) + 1e-8)
        maps = self.convolutions(compressed_spectrogram(level)).flatten(1, 2)
        frames = self.narrow(self.norm_input(self.norm_maps(maps)).transpose(1, 2))
        frames = self.transformer(frames + self.positions[:, : frames.shape[1]])
        frames = self.norm_output(frames.transpose(1, 2)).transpose(1, 2)
        attention = torch.softmax(self.attention(frames), dim=1)
        return self.rate((attention * frames).sum(dim=1))[:, 0], frames.mean(dim=1)


def compressed_spectrogram(waveform: Tensor) -> Tensor:
    """Returns a spectrogram of small magnitudes and true phases, (batch, 2 parts, 161, samples / 160)."""
    edge = (FRAME - HOP) // 2
    padded = F.pad(waveform, (edge, edge), mode="reflect")
    window = torch.hann_window(FRAME, device=waveform.device)
    spectrum = torch.stft(padded, FRAME, HOP, window=window, center=False, return_complex=True)
    magnitude = spectrum.abs().clamp(min=1e-12)
    return torch.view_as_real(spectrum * magnitude ** (COMPRESSION - 1)).permute(0, 3, 1, 2)


def is_distill_mos(checkpoint: Checkpoint) -> bool:
    """Says whether a checkpoint holds DistillMOS."""
    return any(name.startswith(OWN) for name in checkpoint.tensors)


def load_distill_mos(checkpoint: Checkpoint, samples: int | None = None) -> DistillMos:
    """Returns the network with its weights, only to listen, for clips of ``samples`` if told.

    Raises:
        UserError: The weights are those of another size, or the clips longer than it hears.
    """
    if samples and samples > HEARD:
        raise UserError(f"DistillMOS hears up to {HEARD} samples at once, not {samples}")
    model = DistillMos(DistillMosConfig(samples or HEARD))
    load_weights(model, checkpoint)
    return model.eval().requires_grad_(False)
