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
        hold_norms: Batch norms normalise by the statistics they came with, as later in use, and keep them:
            for fine-tuning, and for portions too small to estimate any.
    """

    name: str
    overrides: dict[str, Any] = field(default_factory=dict)
    initial_weights: str | None = None
    dropout: float = within(0, 1, default=1.0)
    hold_norms: bool = False


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
        dataset_weights: How much more often a data set is drawn than its size suggests; a name may be a
            pattern (``copies of *``), and an exact name counts before it.
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
        speed_share: The crop is played faster or slower, voice and all; where it ends early it is repeated.
        speed: How much faster.
        short_share: The crop is cut to a random part of it, at least a quarter, and repeated to its length.
        room_share: Reverberation by a recorded impulse response.
        distortion_share: Impulsive noise or harmonic distortion.
        rawboost_share: One of RawBoost's ways (`train.rawboost`), several times the cost of the former.
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
        codec_share: One of ``codecs``, encoded and decoded; a few milliseconds a crop.
        codecs: Their names (`antispoof.channel.transcoding`).
        gain_db: Level, always; rounded and clipped to 16 bits.
        mixup_alpha: Of the Beta distribution that the share of a batch in its mixture with another order
            of itself is drawn from (arXiv 1710.09412); 0: none.
    """

    speed_share: float = within(0, 1, default=0.0)
    speed: tuple[float, float] = within(0.5, 2, rising=True, default=(0.9, 1.1))
    short_share: float = within(0, 1, default=0.0)
    room_share: float = within(0, 1, default=0.0)
    distortion_share: float = within(0, 1, default=0.0)
    rawboost_share: float = within(0, 1, default=0.0)
    noise_share: float = within(0, 1, default=0.0)
    noise_snr_db: tuple[float, float] = within(-20, 80, rising=True, default=(20.0, 40.0))
    equaliser_share: float = within(0, 1, default=0.0)
    equaliser_db: float = within(0, 30, default=5.0)
    low_pass_share: float = within(0, 1, default=0.0)
    low_pass_hz: tuple[float, float] = within(500, 8_000, rising=True, default=(3_400.0, 7_500.0))
    high_pass_share: float = within(0, 1, default=0.0)
    mask_share: float = within(0, 1, default=0.0)
    hiss_share: float = within(0, 1, default=0.0)
    telephone_share: float = within(0, 1, default=0.0)
    codec_share: float = within(0, 1, default=0.0)
    codecs: tuple[str, ...] = ("mp3", "aac")
    gain_db: tuple[float, float] = within(-60, 40, rising=True, default=(0.0, 0.0))
    mixup_alpha: float = within(0, 100, default=0.0)

    def __post_init__(self) -> None:
        """Refuses codecs without a name."""
        if self.codec_share and not self.codecs:
            raise ValueError("augment.codec_share needs augment.codecs")


@dataclass(frozen=True)
class LossRecipe:
    """What a wrong answer costs; see `train.losses`.

    Attributes:
        name: Of the loss.
        class_weights: Of spoofs and bona fide speech in the cross-entropies. The batches hold both classes
            equally often, so the weights are 1 unless told.
        label_smoothing: Of the cross-entropies.
        alpha: Focal: weight of bona fide speech; that of spoofs is the rest of 1.
        gamma: Focal: how much less a crop counts that is answered well already.
        scale: OC-softmax, additive margin: what a cosine is multiplied by.
        margin: Additive margin: by how much the cosine of the right class has to be ahead.
        cosines: OC-softmax: where bona fide speech is to be above, and spoofs below.
    """

    name: str = one_of("cross-entropy", "focal", "oc-softmax", "additive-margin", default="cross-entropy")
    class_weights: tuple[float, float] = within(0.001, 1000, default=(1.0, 1.0))  # spoof, bona fide
    label_smoothing: float = within(0, 0.5, default=0.0)
    alpha: float = within(0, 1, default=0.9)
    gamma: float = within(0, 10, default=2.5)
    scale: float = within(0.1, 1000, default=20.0)
    margin: float = within(0, 2, default=0.9)
    cosines: tuple[float, float] = within(-1, 1, default=(0.9, 0.2))

    def __post_init__(self) -> None:
        """Refuses what the loss does not look at."""
        weighted = self.label_smoothing or self.class_weights != (1.0, 1.0)
        if weighted and self.name not in ("cross-entropy", "additive-margin"):
            raise ValueError(f"loss.class_weights and loss.label_smoothing mean nothing to {self.name}")
        above, below = self.cosines
        if above <= below:
            raise ValueError(f"loss.cosines must run from high to low, not from {above:g} to {below:g}")


@dataclass(frozen=True)
class AdversarialRecipe:
    """The fast gradient method: each crop is heard a second time, its embedding pushed uphill.

    Attributes:
        epsilon: Length of the push; 0: none.
        layer: Name of the module whose output is the embedding, such as ``wavlm.model.feature_projection``.
    """

    epsilon: float = within(0, 1000, default=0.0)
    layer: str = ""

    def __post_init__(self) -> None:
        """Refuses a layer that nothing would push."""
        if self.layer and not self.epsilon:
            raise ValueError("adversarial.layer does nothing without adversarial.epsilon")


@dataclass(frozen=True)
class DistillRecipe:
    """What is learnt from teachers; only train/distill.py has any.

    Attributes:
        temperature: What logits are divided by before they become probabilities.
        weight: Of the teachers; the rest of 1 is the labels'.
        ensemble: Whether teachers' ``probabilities`` are averaged, or their ``log-odds``.
        trust: Whether teachers are believed in ``all`` they say, or only where they are ``right`` about a
            crop whose label is known.
        clip_teachers_hear: ``all`` recordings, or only those that are ``unlabelled``, such as a transfer set.
        clip_samples: Length at which clip teachers hear recordings; 0: that of their own clip.
        clip_weight: Of what clip teachers say, beside the 1 of those that hear the student's crops.
        feature_weight: Of the distance between the teacher's embedding and what a learnt linear layer makes
            of the student's.
        feature_teachers: Whose embeddings these are: of ``all``, or of the ``clip`` teachers.
        layer: Name of a part that student and teacher share, such as ``encoder``, whose output is compared.
        layer_weight: Of that distance, as a share of what the teacher's part puts out.
        unlabelled_share: Share of a batch that is unlabelled, where there is unlabelled audio.
        untouched_share: Of the unlabelled crops, those that the student hears as clip teachers did, without
            augmentation.
    """

    temperature: float = within(0.1, 100, default=2.0)
    weight: float = within(0, 1, default=0.9)
    ensemble: str = one_of("probabilities", "log-odds", default="probabilities")
    trust: str = one_of("all", "right", default="all")
    clip_teachers_hear: str = one_of("all", "unlabelled", default="all")
    clip_samples: int = within(0, 1_000_000, default=0)
    clip_weight: float = within(0, 1000, default=1.0)
    feature_weight: float = within(0, 1e6, default=0.0)
    feature_teachers: str = one_of("all", "clip", default="all")
    layer: str = ""
    layer_weight: float = within(0, 1e6, default=0.0)
    unlabelled_share: float = within(0, 1, default=0.25)
    untouched_share: float = within(0, 1, default=0.0)

    def __post_init__(self) -> None:
        """Refuses half of what a comparison needs."""
        if bool(self.layer) != bool(self.layer_weight):
            raise ValueError("distill.layer and distill.layer_weight go together")

    @property
    def teaches(self) -> bool:
        """Whether anything that teachers say counts."""
        return bool(self.weight or self.feature_weight or self.compared)

    @property
    def compared(self) -> str:
        """The name of the part whose output is compared, empty where none is."""
        return self.layer if self.layer_weight else ""


@dataclass(frozen=True)
class TransferRecipe:
    """What train/transfer_set.py cuts for teachers to judge.

    Attributes:
        excerpts: Of each recording of a data set, named as in ``data.dataset_weights``; 0.1: of every tenth.
        changed_share: Of the excerpts, those that are played faster or slower or through another frequency
            response, or both.
        joined_share: Of the changed ones, those that are the sum of two, or one that turns into another.
        level_db: RMS of every recording, dBFS: where the teacher hears best.
    """

    excerpts: dict[str, float] = field(
        default_factory=lambda: {"*": 2.0}, metadata={"range": (0.0, 10_000.0)}
    )
    changed_share: float = within(0, 1, default=0.5)
    joined_share: float = within(0, 1, default=0.5)
    level_db: float = within(-60, 0, default=-19.0)


@dataclass(frozen=True)
class QuantizeRecipe:
    """What integers are trained for; only train/qat.py rounds.

    Attributes:
        weight_bits: 8, or 7 for the quantizer's reduced range (``-rr``).
        activation_bits: 8 or 16.
        follow: How much of an activation's range each batch leaves as it was.
    """

    weight_bits: int = within(7, 8, default=8)
    activation_bits: int = within(8, 16, default=8)
    follow: float = within(0, 0.9999, default=0.95)

    def __post_init__(self) -> None:
        """Refuses integers that no quantizer makes."""
        if self.activation_bits not in (8, 16):
            raise ValueError(f"quantize.activation_bits must be 8 or 16, not {self.activation_bits}")


@dataclass(frozen=True)
class OptimiserRecipe:
    """Adam or AdamW under a cosine that starts with a warm-up.

    Attributes:
        name: Of the optimiser.
        learning_rate: At the top of the curve.
        rates: Other rates for parameters whose names hold a word, such as ``lora_``.
        final_share: Of the rate, where the curve ends.
        weight_decay: Not of biases and norms.
        warmup_share: Of all steps.
        clip_norm: Longest gradient.
    """

    name: str = one_of("adam", "adamw", default="adamw")
    learning_rate: float = within(1e-8, 1, default=1e-3)
    rates: dict[str, float] = field(default_factory=dict, metadata={"range": (1e-8, 1.0)})
    final_share: float = within(0, 1, default=0.0)
    weight_decay: float = within(0, 1, default=0.01)
    warmup_share: float = within(0, 0.9, default=0.1)  # of all steps
    clip_norm: float = within(0.001, 1e6, default=2.0)


@dataclass(frozen=True)
class ScheduleRecipe:
    """How long, in which portions, and how often the work is looked at and saved.

    Attributes:
        steps: Updates of the weights.
        batch: Crops in each, over all portions and ranks.
        accumulate: Portions that a batch goes through the network in, one after the other: less memory, and
            batch norms that see each by itself. Unlabelled crops lie last: they can be portions of their own.
        seed: Of everything drawn.
        ema: How slowly the average, which is what is kept of a run, follows the weights.
        swa_share: Share of the steps, at the end, over which the average is the plain mean of the weights
            (stochastic weight averaging, arXiv 1803.05407).
        precision: Of the network's arithmetic; weights stay float32.
        validate_every: Steps.
        save_every: Steps.
    """

    steps: int = within(1, 100_000_000)
    batch: int = within(2, 65_536, default=16)
    accumulate: int = within(1, 65_536, default=1)
    seed: int = within(0, 2**32 - 1, default=0)
    ema: float = within(0, 0.99999, default=0.995)
    swa_share: float = within(0, 1, default=0.0)
    precision: str = one_of("float32", "bfloat16", "float16", default="float32")
    validate_every: int = within(1, default=200)
    save_every: int = within(1, default=100)


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on but the audio, the teachers and the machine."""

    model: ModelRecipe
    schedule: ScheduleRecipe
    data: DataRecipe = field(default_factory=DataRecipe)
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    adversarial: AdversarialRecipe = field(default_factory=AdversarialRecipe)
    distill: DistillRecipe = field(default_factory=DistillRecipe)
    transfer: TransferRecipe = field(default_factory=TransferRecipe)
    quantize: QuantizeRecipe = field(default_factory=QuantizeRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)


def read_recipe(path: Path) -> Recipe:
    """Returns the recipe in a YAML file.

    Raises:
        UserError: The file cannot be read, is not YAML, or a key is unknown, missing, there twice, of the
            wrong type or out of range.
    """
    try:
        import yaml
    except ImportError:
        raise UserError("reading a recipe needs PyYAML: pip install 'antispoof[train]'") from None

    class Loader(yaml.SafeLoader):
        """Refuses a key that is there twice, as YAML does: the last of two sections would count alone."""

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value} is there twice", problem_mark=key.start_mark
                    )
                seen.add(str(key.value))
            return node

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({one_line(error)})") from None
    try:
        return build(Recipe, content)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def replace_schedule(recipe: Recipe, **given: object) -> Recipe:
    """Returns the recipe with what the command line says of its schedule; None says nothing.

    Raises:
        UserError: One of them is out of range.
    """
    said = {key: value for key, value in given.items() if value is not None}
    try:
        schedule = build(ScheduleRecipe, {**dataclasses.asdict(recipe.schedule), **said}, "schedule.")
    except ValueError as error:
        raise UserError(f"command line: {error}") from None
    return dataclasses.replace(recipe, schedule=schedule)
