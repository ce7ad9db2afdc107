"""What a training run is told: a YAML file as frozen dataclasses, each mistake named by file and key."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antispoof.audio import CLIP_SAMPLES
from antispoof.errors import UserError, one_line
from train.mapping import build, one_of, within


@dataclass(frozen=True)
class ModelRecipe:
    """Which network, and what it starts from.

    Attributes:
        name: As the registry of models calls it.
        overrides: Fields of its configuration that differ from the default.
        initial_weights: A checkpoint; random weights where there is none.
        dropout: Share of the network's own dropout that is kept; a short training underfits with all of it.
    """

    name: str
    overrides: dict[str, Any] = field(default_factory=dict)
    initial_weights: str | None = None
    dropout: float = within(0, 1, default=1.0)


@dataclass(frozen=True)
class DataRecipe:
    """Which recordings are trained on, and how often each is drawn.

    Attributes:
        folders: Rows whose path starts so are taken, both classes. None given: all rows.
        free_recordings: Bona fide rows of other folders are taken too where their licence names one of these.
        refuse_licences: Rows whose licence holds one of these words are never taken.
        noise_folders: Rows labelled ``noise`` below these are the additive noise.
        room_folders: Rows labelled ``noise`` below these are impulse responses.
        pair_share: Share of a batch that comes in pairs: a recording and a spoofed copy of it, cut at the
            same place and treated alike, so that nothing tells them apart but the copying.
        dataset_weights: How much more often a data set is drawn than its size suggests.
        crop_samples: Length of the training crops at 16 kHz, at most the clip of the model.
    """

    folders: tuple[str, ...] = ()
    free_recordings: tuple[str, ...] = ()
    refuse_licences: tuple[str, ...] = ()
    noise_folders: tuple[str, ...] = ()
    room_folders: tuple[str, ...] = ()
    pair_share: float = within(0, 1, default=0.0)
    dataset_weights: dict[str, float] = field(default_factory=dict, metadata={"range": (0.01, 100.0)})
    crop_samples: int = within(4_000, 1_000_000, default=CLIP_SAMPLES)


@dataclass(frozen=True)
class AugmentRecipe:
    """What is done to a crop before the network hears it, in this order; a share is how often.

    Attributes:
        short_share: The crop is cut to a random part of it, at least a quarter, and repeated to its length.
        room_share: Reverberation by a recorded impulse response.
        distortion_share: RawBoost's impulsive noise or harmonic distortion (arXiv 2111.04433).
        noise_share: A recorded noise.
        noise_snr_db: Its level, and that of ``hiss``.
        equaliser_share: A random frequency response.
        equaliser_db: Its standard deviation.
        low_pass_share: Nothing above a random frequency.
        low_pass_hz: That frequency.
        high_pass_share: Nothing below 40 to 400 Hz.
        mask_share: A random band is taken out, up to a fifth of the spectrum.
        hiss_share: Stationary noise between white and pink.
        telephone_share: G.711 at 8 kHz and back.
        gain_db: Level, always; rounded and clipped to 16 bits.
    """

    short_share: float = within(0, 1, default=0.0)
    room_share: float = within(0, 1, default=0.0)
    distortion_share: float = within(0, 1, default=0.0)
    noise_share: float = within(0, 1, default=0.0)
    noise_snr_db: tuple[float, float] = within(-20, 80, default=(20.0, 40.0))
    equaliser_share: float = within(0, 1, default=0.0)
    equaliser_db: float = within(0, 30, default=5.0)
    low_pass_share: float = within(0, 1, default=0.0)
    low_pass_hz: tuple[float, float] = within(500, 8_000, default=(3_400.0, 7_500.0))
    high_pass_share: float = within(0, 1, default=0.0)
    mask_share: float = within(0, 1, default=0.0)
    hiss_share: float = within(0, 1, default=0.0)
    telephone_share: float = within(0, 1, default=0.0)
    gain_db: tuple[float, float] = within(-60, 40, default=(0.0, 0.0))


@dataclass(frozen=True)
class LossRecipe:
    """Cross-entropy; the batches hold both classes equally often, so the weights are 1 unless told."""

    class_weights: tuple[float, float] = within(0.001, 1000, default=(1.0, 1.0))  # spoof, bona fide
    label_smoothing: float = within(0, 0.5, default=0.0)


@dataclass(frozen=True)
class OptimiserRecipe:
    """Adam or AdamW under a cosine that starts with a warm-up."""

    name: str = one_of("adam", "adamw", default="adamw")
    learning_rate: float = within(1e-8, 1, default=1e-3)
    weight_decay: float = within(0, 1, default=0.01)
    warmup_share: float = within(0, 0.9, default=0.1)  # of all steps
    clip_norm: float = within(0.001, 1e6, default=2.0)


@dataclass(frozen=True)
class ScheduleRecipe:
    """How long, in which portions, and how often the work is looked at and saved."""

    steps: int = within(1, 100_000_000)
    batch: int = within(2, 65_536, default=16)
    seed: int = within(0, 2**32 - 1, default=0)
    ema: float = within(0, 0.99999, default=0.995)
    precision: str = one_of("float32", "bfloat16", default="float32")
    validate_every: int = within(1, default=200)
    save_every: int = within(1, default=100)


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on but the audio and the number of threads."""

    model: ModelRecipe
    schedule: ScheduleRecipe
    data: DataRecipe = field(default_factory=DataRecipe)
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)


def read_recipe(path: Path) -> Recipe:
    """Returns the recipe in a YAML file.

    Raises:
        UserError: The file cannot be read, is not YAML, or a key is unknown, missing, of the wrong type
            or out of range.
    """
    try:
        import yaml
    except ImportError:
        raise UserError("reading a recipe needs PyYAML: pip install 'antispoof[train]'") from None

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({one_line(error)})") from None
    try:
        return build(Recipe, content)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def replace_schedule(recipe: Recipe, steps: int | None, seed: int | None) -> Recipe:
    """Returns the recipe with what the command line says in place of its steps and seed.

    Raises:
        UserError: One of them is out of range.
    """
    given = {key: value for key, value in (("steps", steps), ("seed", seed)) if value is not None}
    try:
        schedule = build(ScheduleRecipe, {**dataclasses.asdict(recipe.schedule), **given}, "schedule.")
    except ValueError as error:
        raise UserError(f"command line: {error}") from None
    return dataclasses.replace(recipe, schedule=schedule)
