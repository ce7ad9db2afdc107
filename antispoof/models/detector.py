"""What every detector promises, so that exporters, runtimes and trainers need to know nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from antispoof.audio import CLIP_SAMPLES, MAX_SECONDS, SAMPLE_RATE
from antispoof.columns import Geometry
from antispoof.errors import UserError

SPOOF, BONAFIDE = 0, 1  # index of each class in the logits, the order of the ASVspoof baselines
LABELS = ("spoof", "bonafide")


@dataclass(frozen=True)
class Config:
    """Base of every model's configuration: plain numbers, words and tuples of numbers.

    Raises:
        UserError: A field holds something of another kind, as a file or a command line may ask for.
    """

    clip_samples: int = CLIP_SAMPLES

    def __post_init__(self) -> None:
        """Checks each field against its annotation."""
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            parts, inner = (value, get_args(kind)[0]) if get_origin(kind) is tuple else ((value,), kind)
            accepted = (int, float) if inner is float else inner
            if parts == ():
                raise UserError(f"{name} is empty")
            plain = isinstance(parts, tuple) and all(type(p) is bool for p in parts) == (inner is bool)
            if not plain or not all(isinstance(part, accepted) for part in parts):
                raise UserError(f"{name} is {value!r}, which is no {getattr(kind, '__name__', kind)}")
        if self.clip_samples > MAX_SECONDS * SAMPLE_RATE:
            raise UserError(f"clip_samples is {self.clip_samples}, more than {MAX_SECONDS} s of audio")


class DetectorOutput(NamedTuple):
    """What a detector hears in a batch of clips."""

    logits: Tensor  # (batch, 2), [:, SPOOF] and [:, BONAFIDE]
    embedding: Tensor  # (batch, features), what the last layer sees


@dataclass(frozen=True)
class Split:
    """A detector in two halves, for windows that follow one another.

    Attributes:
        encoder: Takes ``waveform (1, samples)``, the newest of a window, and what it handed on last; returns
            columns ``(1, ..., time)``, then what it hands on, in a tuple where that is anything.
        back_end: Takes a window's columns and, where ``hears`` is true, its waveform ``(1, samples)``;
            returns the score ``(1,)``.
        geometry: Which samples make which columns.
        carried: What the encoder gets with a window that follows none.
        hears: Whether the back end takes the waveform too.
    """

    encoder: nn.Module
    back_end: nn.Module
    geometry: Geometry
    carried: tuple[Tensor, ...] = ()
    hears: bool = False


class Detector(nn.Module):
    """A network from waveform to logits with its front end inside.

    Attributes:
        config: The frozen dataclass that the network was built from.
        clip_samples: How many samples at 16 kHz a clip must have.
        any_length: Whether clips of other lengths are legal too.
        public_names: ``(pattern, replacement)`` pairs that turn the parameter names of the public
            code into ours, applied with ``re.sub`` in order.
        dead_weights: Patterns of public names whose weights never reach the public code's output.
            They are dropped on loading; anything else unknown is an error.
        float32_parts: Parts, by the path of their source, that lose what the network hears in half precision.
    """

    config: Config
    clip_samples: int
    any_length: bool = False
    public_names: ClassVar[tuple[tuple[str, str], ...]] = ()
    dead_weights: ClassVar[tuple[str, ...]] = ()
    float32_parts: ClassVar[tuple[str, ...]] = ()

    # Set by `create_model`: what is needed to build the same network again.
    name: str = ""
    overrides: dict[str, Any] = {}  # noqa: RUF012 - replaced per instance, never changed in place

    def forward(self, waveform: Tensor) -> DetectorOutput:
        """Returns logits and embedding of ``waveform (batch, samples)``, float32 at 16 kHz."""
        raise NotImplementedError

    def score(self, output: DetectorOutput) -> Tensor:
        """Returns the detection score ``(batch,)``, higher = more likely bona fide.

        The raw bona fide logit, the convention of the AASIST family and of its published score files.
        """
        return output.logits[:, BONAFIDE]

    def example_input(self, batch: int = 1) -> Tensor:
        """Returns a seeded waveform ``(batch, samples)`` at speech level, for tracing."""
        noise = torch.Generator().manual_seed(0)
        return 0.05 * torch.randn(batch, self.clip_samples, generator=noise)

    def split(self, *, exact: bool) -> Split:
        """Returns the detector in halves; the first has little to do for a window that follows another.

        Args:
            exact: Whether the score must be that of the whole window, up to rounding; otherwise one near it,
                for the least work.

        Raises:
            UserError: The network has nothing to keep from window to window; most have not.
        """
        raise UserError(
            f"{self.name or type(self).__name__} keeps nothing from one window to the next; "
            "export it whole, runtimes/stream.py takes it as it is"
        )

    def check_length(self, waveform: Tensor) -> None:
        """Raises ``ValueError`` unless ``waveform`` is ``(batch, samples)`` of a legal length."""
        if waveform.dim() != 2 or not (self.any_length or waveform.shape[1] == self.clip_samples):
            raise ValueError(
                f"{self.name or type(self).__name__} takes waveforms (batch, {self.clip_samples}), "
                f"got {tuple(waveform.shape)}"
            )


def freeze(model: nn.Module) -> None:
    """Replaces, in place, what only training needs by its inference equivalent.

    Calls ``freeze()`` of every submodule that has one (children first): batch norms fold into the
    layer before them, learnable filters become constants, adapters merge into their weights. The
    function computed in eval mode stays the same up to rounding. For inference only.
    """
    model.eval()
    with torch.no_grad():
        for module in reversed(list(model.modules())):
            own_freeze = getattr(module, "freeze", None)
            if module is not model and callable(own_freeze):
                own_freeze()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
