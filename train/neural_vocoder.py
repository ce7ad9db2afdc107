"""Trains a small neural vocoder on bona fide speech, to make spoofs that sound like today's.

    python train/neural_vocoder.py --config train/configs/fscnn.yaml --audio DIR --kind transposed \
        --out vocoders/transposed.safetensors
    python train/vocode.py --config train/configs/fscnn.yaml --audio DIR \
        --vocoder vocoders/transposed.safetensors --out resynthesised/

Learns to turn mel spectrograms back into waveforms, with a loss on spectra at several resolutions and an
adversary on spectrograms (HiFi-GAN, arXiv 2010.05646; Vocos, arXiv 2306.00814; UnivNet, arXiv 2106.07889).
Three kinds: ``transposed`` ends in transposed convolutions, like HiFi-GAN; ``istft`` predicts spectra, like
Vocos; ``autoencoder`` reads a narrow, noisy code of the waveform instead of the mel spectrogram, like neural
codecs (SoundStream, arXiv 2107.03312), and so soon sounds right but for what its decoder leaves behind.
Minutes of training are enough: what such a network does to the grain of a spectrum is there early.
Weights are also kept at half of the way (NAME.half.safetensors): an earlier system, for more variety.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soxr
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError, one_line, run
from antispoof.memory import keep_freed_memory
from antispoof.outputs import make_folder, refuse_existing, write_whole
from antispoof.protocols import BONAFIDE
from train.dataset import INT16_SCALE, check_usable, decode, may_train, read_rows
from train.recipe import read_recipe
from train.resynthesis import Resynthesis, mel_filters

MEL_BANDS = 80
LEVEL = 0.1  # RMS that waveforms are brought to
CROP_FRAMES = 50
BATCH = 8
KINDS = {
    "istft": 24_000,
    "transposed": 22_050,
    "autoencoder": 22_050,
}  # and the sample rate that systems of that kind have
WIDTH = 128
FACTORS = (8, 8, 4)  # of the transposed convolutions; their product is the hop
CODE = 32  # channels of the autoencoder's code, for 256 samples
CODE_NOISE = 0.1  # of its standard deviation, in place of quantization


class FrameBlock(nn.Module):
    """Depthwise convolution over frames and a two-layer perceptron at each frame (ConvNeXt)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.widen = nn.Conv1d(width, 3 * width, 1)
        self.narrow = nn.Conv1d(3 * width, width, 1)
        self.scale = nn.Parameter(torch.full((width, 1), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, width, frames)``."""
        return x + self.scale * self.narrow(F.gelu(self.widen(self.norm(self.depthwise(x)))))


class Vocoder(nn.Module):
    """From a log mel spectrogram to a waveform."""

    mel: Tensor
    window: Tensor
    hop = 256
    size = 1024

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.rate = kind, KINDS[kind]
        filters = mel_filters(self.rate, self.size, MEL_BANDS, self.rate / 2)
        self.register_buffer("mel", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.size), persistent=False)
        self.code: nn.Module | None = CodeHead() if kind == "autoencoder" else None
        self.enter = nn.Conv1d(CODE if kind == "autoencoder" else MEL_BANDS, WIDTH, 7, padding=3)
        self.frames = nn.Sequential(*(FrameBlock(WIDTH) for _ in range(4 if kind == "istft" else 2)))
        self.leave: nn.Module = (
            nn.Conv1d(WIDTH, self.size + 2, 1) if kind == "istft" else TransposedHead(WIDTH)
        )

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns the copy of ``waveform (batch, samples)``, of the same shape."""
        samples = waveform.shape[1]
        if self.code is None:
            heard = torch.log(self.mel @ self._stft(waveform).abs() + 1e-4)
        else:
            heard = self.code(waveform)
        y = self.leave(self.frames(self.enter(heard)))
        if self.kind != "istft":
            return F.pad(y[:, 0], (0, max(0, samples - y.shape[2])))[:, :samples]
        magnitude, phase = y.chunk(2, dim=1)
        spectrum = torch.polar(torch.exp(magnitude.clamp(max=6)), phase)
        return torch.istft(spectrum, self.size, self.hop, window=self.window, length=samples)

    def _stft(self, waveform: Tensor) -> Tensor:
        return torch.stft(waveform, self.size, self.hop, window=self.window, return_complex=True)


class CodeHead(nn.Module):
    """Waveform to a code of `CODE` channels a hop, by strided convolutions, with noise on it."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 64)
        layers: list[nn.Module] = []
        for index, factor in enumerate(reversed(FACTORS)):
            inner, outer = widths[index], widths[index + 1]
            down = nn.Conv1d(inner, outer, 2 * factor, factor, padding=factor // 2)
            layers += [down, DilatedResidual(outer), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers, nn.Conv1d(widths[-1], CODE, 3, padding=1))
        self.norm = nn.GroupNorm(1, CODE, affine=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns ``(batch, CODE, samples // hop)`` of ``waveform (batch, samples)``."""
        code = self.norm(self.layers(waveform[:, None]))
        return code + CODE_NOISE * torch.randn_like(code)


class TransposedHead(nn.Sequential):
    """Frames to samples by transposed convolutions with a dilated residual layer behind each."""

    def __init__(self, width: int) -> None:
        widths = (width, 64, 32, 16)
        layers: list[nn.Module] = []
        for index, factor in enumerate(FACTORS):
            up = nn.ConvTranspose1d(widths[index], widths[index + 1], 2 * factor, factor, padding=factor // 2)
            layers += [nn.LeakyReLU(0.1), up, DilatedResidual(widths[index + 1])]
        super().__init__(*layers, nn.LeakyReLU(0.1), nn.Conv1d(widths[-1], 1, 7, padding=3), nn.Tanh())


class DilatedResidual(nn.Module):
    """Two dilated convolutions, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv1d(width, width, 3, padding=1)
        self.far = nn.Conv1d(width, width, 3, padding=3, dilation=3)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the shape it was given."""
        return x + self.far(F.leaky_relu(self.near(F.leaky_relu(x, 0.1)), 0.1))


class Adversary(nn.Module):
    """Tells true spectrograms from made ones, patch by patch, at two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.views = nn.ModuleList(self._view() for _ in range(2))

    @staticmethod
    def _view() -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 16), (16, 24), (24, 32)):
            layers += [nn.Conv2d(inputs, outputs, (5, 3), (2, 1), (2, 1)), nn.LeakyReLU(0.1)]
        return nn.Sequential(*layers, nn.Conv2d(32, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> list[Tensor]:
        """Returns the verdict on every patch, one map for each resolution."""
        return [
            view(torch.log(spectrogram(waveform, size) + 1e-3)[:, None])
            for view, size in zip(self.views, (512, 1024), strict=True)
        ]


def spectrogram(waveform: Tensor, size: int) -> Tensor:
    """Returns magnitudes ``(batch, size // 2 + 1, frames)``."""
    window = torch.hann_window(size)
    return torch.stft(waveform, size, size // 4, window=window, return_complex=True).abs()


def spectral_loss(made: Tensor, true: Tensor) -> Tensor:
    """Returns how far spectra are apart at three resolutions (Parallel WaveGAN, arXiv 1910.11480)."""
    loss = made.new_zeros(())
    for size in (256, 512, 1024):
        a, b = spectrogram(made, size) + 1e-4, spectrogram(true, size) + 1e-4
        loss = loss + (a.log() - b.log()).abs().mean() + (a - b).norm() / (b.norm() + 1e-3)
    return loss


def train_vocoder(
    clips: list[np.ndarray],
    kind: str,
    steps: int,
    seed: int,
    half_way: Callable[[Vocoder], None],
    start: Vocoder | None = None,
) -> Vocoder:
    """Returns a trained vocoder.

    Args:
        clips: Bona fide speech at 16 kHz, int16, each longer than a crop.
        kind: One of `KINDS`.
        steps: Of the generator.
        seed: Of the weights and of the crops.
        half_way: Told of the vocoder after half of the steps.
        start: A vocoder that is trained further instead of a new one.

    Raises:
        UserError: No clip is as long as a crop.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    vocoder, adversary = start or Vocoder(kind), Adversary()
    optimiser = torch.optim.AdamW(vocoder.parameters(), 1e-3, betas=(0.8, 0.99))
    opponent = torch.optim.AdamW(adversary.parameters(), 5e-4, betas=(0.8, 0.99))
    samples = CROP_FRAMES * vocoder.hop
    needed = int(np.ceil(samples * SAMPLE_RATE / vocoder.rate)) + 1
    chosen = [clip for clip in clips if len(clip) >= needed]
    if not chosen:
        raise UserError(f"no recording has the {needed / SAMPLE_RATE:.1f} s that a crop needs")
    progress = tqdm(range(steps), desc=f"training {kind}", unit="step", disable=None)
    for step in progress:
        rate = 1e-3 * max(0.1, 1 - step / steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        true = _crops(chosen, needed, vocoder.rate, samples, generator)
        made = vocoder(true)
        loss = spectral_loss(made, true)
        if kind == "autoencoder":  # only this one has heard the phases that it is asked for
            loss = loss + 20 * (made - true).abs().mean()
        if start or step > steps // 4:  # before that there is nothing to argue about
            opponent.zero_grad()
            verdicts = zip(adversary(true), adversary(made.detach()), strict=True)
            sum(((a - 1).square().mean() + b.square().mean()) for a, b in verdicts).backward()
            opponent.step()
            loss = loss + 0.5 * sum((verdict - 1).square().mean() for verdict in adversary(made))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vocoder.parameters(), 5.0)
        optimiser.step()
        progress.set_postfix(loss=f"{loss.item():.2f}")
        if step == steps // 2:
            half_way(vocoder)
    return vocoder


def _crops(
    clips: list[np.ndarray], needed: int, rate: int, samples: int, generator: np.random.Generator
) -> Tensor:
    """Returns ``(BATCH, samples)`` at ``rate``, at the level that vocoders work at."""
    crops = []
    for index in generator.integers(len(clips), size=BATCH):
        start = generator.integers(len(clips[index]) - needed + 1)
        crop = clips[index][start : start + needed].astype(np.float32) / INT16_SCALE
        crop = soxr.resample(crop, SAMPLE_RATE, rate)[:samples]
        crops.append(np.pad(crop, (0, samples - len(crop))) * (LEVEL / (crop.std() + 1e-4)))
    return torch.from_numpy(np.stack(crops))


def _save(vocoder: Vocoder, path: Path) -> None:
    weights = {name: value.contiguous() for name, value in vocoder.state_dict().items()}
    write_whole(path, save(weights, metadata={"vocoder": json.dumps({"kind": vocoder.kind})}))


def read_vocoder(path: Path) -> Vocoder:
    """Returns a trained vocoder.

    Raises:
        UserError: The file is none.
    """
    try:
        with safe_open(path, "pt") as file:
            vocoder = Vocoder(json.loads((file.metadata() or {})["vocoder"])["kind"])
            vocoder.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} is no vocoder of train/neural_vocoder.py: {one_line(error)}") from None
    return vocoder


def load_vocoder(path: Path) -> tuple[int, Resynthesis]:
    """Returns the sample rate of a trained vocoder and what it makes of a recording at that rate.

    Raises:
        UserError: The file is no vocoder.
    """
    vocoder = read_vocoder(path).eval()

    def revoice(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
        level = LEVEL / (waveform.std() + 1e-6)
        x = torch.from_numpy(waveform.astype(np.float32))[None] * level
        torch.manual_seed(int(generator.integers(2**63)))  # of the noise on a code
        with torch.inference_mode():
            return vocoder(x)[0].numpy() / level

    return vocoder.rate, revoice


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    if args.out.suffix != ".safetensors":
        raise UserError(f"--out must end in .safetensors, not be {args.out}")
    refuse_existing(args.out, args.force)
    if args.steps < 1:
        raise UserError(f"--steps must be at least 1, not {args.steps}")
    start = read_vocoder(args.start) if args.start else None
    if start and start.kind != args.kind:
        raise UserError(f"{args.start} is of the kind {start.kind}, not {args.kind}")
    data = read_recipe(args.config).data
    rows = read_rows(args.protocol or args.audio / "manifest.tsv", args.audio)
    speech = [row for row in rows if row.split == "train" and row.label == BONAFIDE and may_train(row, data)]
    check_usable(rows, BONAFIDE, data)
    torch.set_num_threads(args.threads)
    make_folder(args.out.parent)
    clips = decode(speech, partial(tqdm, desc="decoding", unit="clip", disable=None), args.out.parent)
    keep_freed_memory()
    half_way = partial(_save, path=args.out.with_suffix(".half.safetensors"))
    _save(train_vocoder(clips, args.kind, args.steps, args.seed, half_way, start), args.out)
    print(args.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neural_vocoder.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--protocol", type=Path, help="the list (default: manifest.tsv in --audio)")
    parser.add_argument(
        "--config", type=Path, required=True, help="recipe whose data section says what may be used"
    )
    parser.add_argument("--kind", choices=sorted(KINDS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="the weights, .safetensors")
    parser.add_argument("--start", type=Path, help="a vocoder of the same kind that is trained further")
    parser.add_argument("--steps", type=int, default=3000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace --out")
    return parser


if __name__ == "__main__":
    run(main)
