"""Training with rounding in the way, so that the weights grow used to integers.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
arXiv 1712.05877, sec. 3: forwards everything is rounded as the quantized file will round it, backwards as if
it were not (the straight-through estimator). What is rounded, and to what, is what quantize/static_int.py
makes of the exported file:

- weights of convolutions, symmetric, one scale per output channel. Folding a norm or a factor into a channel
  does not change its integers, so the weights are rounded as they are, unfolded;
- what convolutions, activations, sums and poolings put out, on one grid each, whose range has the least mean
  squared error, as the quantizer's has. An ELU shares the step of what it reads, so that what is positive
  passes as it is;
- neither the layers that hear the waveform nor the small projections behind the encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from antispoof.errors import UserError
from antispoof.models import Detector
from antispoof.models.fscnn import ConvNorm, SeparableBlock
from antispoof.models.layers.fine_spectrum import FineSpectrum
from antispoof.models.layers.primitives import SELU_ALPHA, SELU_SCALE
from antispoof.models.layers.residual import ResidualBlock
from train.loop import Dressing
from train.recipe import QuantizeRecipe

# Of each kind of module: the convolutions, and the parts whose output becomes integers ("" is the whole).
ROUNDED: dict[type[nn.Module], tuple[tuple[str, ...], tuple[str, ...]]] = {
    FineSpectrum: ((), ("",)),
    ConvNorm: (("conv",), ("",)),  # a ReLU costs the file no rounding of its own
    SeparableBlock: ((), ("",)),
    ResidualBlock: (("conv1", "conv2", "shortcut"), ("norm", "activation", "conv2", "shortcut", "pool")),
}
BINS = 4_096  # of the histogram that a range is chosen on
SHRINKS = (0.6, 0.7, 0.8, 0.9, 1.0)  # shares of the extremes that a range may end at
EVERY = 4  # along time, what ranges are chosen by: choosing by all values takes longer than the convolutions
ELU_LOWEST = -4.5  # below, a SELU changes by less than a step, so the range of what it reads ends there


class FakeQuantization(Dressing):
    """Rounds the weights and activations of a detector; the ranges of activations are its state."""

    def __init__(self, recipe: QuantizeRecipe) -> None:
        super().__init__()
        self._recipe = recipe

    def dress(self, model: Detector) -> None:
        """Rounds what ``model`` computes from now on; in training mode the ranges follow what is heard.

        Raises:
            UserError: It is not known what of this model the quantizer makes integers.
        """
        convolutions, parts = list(_convolutions(model)), list(_parts(model))
        if not convolutions:
            raise UserError(f"no way is known to round {model.name}; fscnn and the AASIST family can be")
        limit = 2 ** (self._recipe.weight_bits - 1) - 1
        for convolution in convolutions:
            convolution.forward = partial(_convolve_rounded, convolution, limit)  # type: ignore[method-assign]
        for name, part in parts:
            key = "range_" + name.replace(".", "_")
            if not hasattr(self, key):
                self.register_buffer(key, torch.full((2,), torch.nan))
            part.register_forward_hook(partial(self._round, model, key))

    def _round(self, model: Detector, key: str, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        span: Tensor = getattr(self, key)
        steps = 2**self._recipe.activation_bits - 1
        if model.training:  # the part itself may be a norm that holds its statistics
            best = self._best(key, module, output.detach(), steps)
            kept = 0.0 if span.isnan().any() else self._recipe.follow
            span.copy_(torch.nan_to_num(span) * kept + best * (1 - kept))
        return round_activations(output, span, steps)

    def _best(self, key: str, module: nn.Module, output: Tensor, steps: int) -> Tensor:
        """Returns the range ``(2,)`` that fits one output best."""
        before = key.removesuffix("activation") + "norm"
        if isinstance(module, nn.SELU) and hasattr(self, before):
            return range_behind_selu(getattr(self, before), steps)
        some = output[..., ::EVERY]
        return best_range(some.clamp(min=ELU_LOWEST) if key.endswith("_norm") else some, steps)


def _convolutions(model: Detector) -> Iterator[nn.Conv2d]:
    for module in model.modules():
        for name in ROUNDED.get(type(module), ((), ()))[0]:
            convolution = getattr(module, name)
            if isinstance(convolution, nn.Conv2d):
                yield convolution


def _parts(model: Detector) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        for part in ROUNDED.get(type(module), ((), ()))[1]:
            inner = module.get_submodule(part)
            copies = isinstance(module, SeparableBlock) and not module.keeps_shape  # its last part's output
            if not (isinstance(inner, nn.Identity) or copies):
                yield f"{name}.{part}".rstrip("."), inner


def _convolve_rounded(convolution: nn.Conv2d, limit: int, x: Tensor) -> Tensor:
    weights = round_weights(convolution.weight, limit)
    return convolution._conv_forward(x, weights, convolution.bias)


def round_weights(weights: Tensor, limit: int) -> Tensor:
    """Returns ``weights (output channels, ...)`` on symmetric grids, ``limit`` steps each way per channel."""
    largest = weights.detach().abs().amax(dim=tuple(range(1, weights.dim())), keepdim=True)
    scale = torch.where(largest > 0, largest, 1.0) / limit
    return weights + (torch.round(weights.detach() / scale) * scale - weights.detach())


def round_activations(x: Tensor, span: Tensor, steps: int) -> Tensor:
    """Returns ``x`` on the grid of ``steps`` from ``span[0]`` to ``span[1]``, which holds 0.

    The gradient passes where ``x`` lies within, and ends where it is cut off.
    """
    scale, zero = _grid(span, steps)
    return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, steps).to(x.dtype)


def _grid(span: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Returns the step of the grid that comes closest to a range, and which of its integers is 0."""
    low, high = span[0].clamp(max=0.0), span[1].clamp(min=0.0)
    scale = (high - low).clamp(min=1e-6) / steps
    return scale, torch.round(-low / scale).to(torch.int32)


def range_behind_selu(span: Tensor, steps: int) -> Tensor:
    """Returns the range ``(2,)`` of a SELU's output with the step of its input, whose range is ``span``."""
    step = _grid(span, steps)[0]
    below = torch.ceil(SELU_ALPHA / step).clamp(max=steps)
    return SELU_SCALE * step * torch.stack([-below, steps - below])


def best_range(x: Tensor, steps: int) -> Tensor:
    """Returns the range ``(2,)`` whose grid has the least squared error on ``x``, by its histogram."""
    values = x.float()
    low, high = values.min().clamp(max=0.0), values.max().clamp(min=0.0)
    edges = torch.linspace(0, 1, 2 * BINS + 1, device=x.device)[1::2]
    centres = low + (high - low) * edges
    counts = torch.histc(values, BINS, float(low), float(high))
    spans = [torch.stack([low * a, high * b]) for a in SHRINKS for b in SHRINKS]
    errors = [((round_activations(centres, span, steps) - centres).square() * counts).sum() for span in spans]
    return torch.stack(spans)[torch.stack(errors).argmin()]
