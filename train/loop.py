"""The training loop, and everything that lets a run be killed at any moment and go on to the same last bit.

A step is a function of the state before it and of its number: the batch and the dropout are drawn from
(seed, step), so no iterator and no random generator has to be saved beside weights, optimiser and average.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from antispoof.checkpoint import load_weights, read_checkpoint, save_checkpoint
from antispoof.errors import UserError
from antispoof.models import Detector, create_model
from train.dataset import Batches
from train.losses import cross_entropy
from train.recipe import OptimiserRecipe, Recipe

STATES_KEPT = 5
COLUMNS = ("step", "loss", "dev_eer", "learning_rate")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def learning_rate(step: int, steps: int, recipe: OptimiserRecipe) -> float:
    """Returns the rate of a step, counted from 0: up in a straight line, then half a cosine down."""
    warmup = round(recipe.warmup_share * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    return recipe.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def build_optimiser(model: nn.Module, recipe: OptimiserRecipe) -> torch.optim.Optimizer:
    """Returns the optimiser; biases and the scales of norms do not decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if recipe.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.learning_rate)


def build_model(recipe: Recipe) -> Detector:
    """Returns the network for crops of the recipe's length, its weights random (from the seed) or loaded.

    Raises:
        UserError: The crop is longer than the clip of the model, or the initial weights do not fit.
    """
    full = create_model(recipe.model.name, **recipe.model.overrides)
    crop = recipe.data.crop_samples
    if crop > full.clip_samples:
        raise UserError(f"crop_samples is {crop}, but a clip of {full.name} has {full.clip_samples} samples")
    torch.manual_seed(recipe.schedule.seed)
    model = create_model(recipe.model.name, **{**recipe.model.overrides, "clip_samples": crop})
    if recipe.model.initial_weights:
        load_weights(model, read_checkpoint(recipe.model.initial_weights))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p *= recipe.model.dropout
    # Twice as fast as the default order for these convolutions on a CPU.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


class BatchesByStep(Dataset[tuple[Tensor, Tensor]]):
    """The batches of some steps, for a loader that fetches them in other processes."""

    def __init__(self, batches: Batches, steps: range, size: int) -> None:
        self._batches, self._steps, self._size = batches, steps, size

    def __len__(self) -> int:
        """Returns the number of batches."""
        return len(self._steps)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns waveforms and labels of the ``index``-th of the steps."""
        return self._batches.batch(self._steps[index], self._size)


class Run:
    """One training run and the folder that it lives in.

    Attributes:
        step: How many steps are done.
        history: The rows of metrics.tsv so far, in the order of ``COLUMNS``.
    """

    def __init__(
        self,
        recipe: Recipe,
        conditions: dict[str, Any],
        batches: Batches,
        validate: Callable[[Detector], float],
        folder: Path,
        workers: int = 0,
    ) -> None:
        """Starts at step 0.

        Args:
            recipe: What to do.
            conditions: What else the result depends on, such as the number of threads; kept with every state.
            batches: Where the audio comes from.
            validate: Returns the dev EER of a model that takes whole clips.
            folder: Where states, weights and metrics go.
            workers: Processes that prepare batches ahead; the batches are the same for any number.
        """
        self._workers = workers
        self._recipe, self._batches, self._validate, self._folder = recipe, batches, validate, folder
        self._identity = {"recipe": dataclasses.asdict(recipe), **conditions}
        self._model = build_model(recipe)
        self._average = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._optimiser = build_optimiser(self._model, recipe.optimiser)
        self.step = 0
        self.history: list[tuple[int, float, float, float]] = []
        self._loss_sum, self._loss_steps = 0.0, 0

    def train(self, watch: Callable[[Sequence[int], int], Iterable[int]]) -> None:
        """Trains to the last step of the recipe.

        Args:
            watch: Wraps the numbers of the steps to show the progress; told how many are done already.
        """
        schedule = self._recipe.schedule
        self._model.train()
        steps = range(self.step, schedule.steps)
        ahead = DataLoader(
            BatchesByStep(self._batches, steps, schedule.batch), batch_size=None, num_workers=self._workers
        )
        for step, (waveforms, labels) in zip(watch(steps, self.step), ahead, strict=False):
            self._train_step(step, waveforms, labels)
            self.step = step + 1
            last = self.step == schedule.steps
            if last or self.step % schedule.validate_every == 0:
                self._look(step)
            if last or self.step % schedule.save_every == 0:
                self._save()
        self._export("final")

    def _train_step(self, step: int, waveforms: Tensor, labels: Tensor) -> None:
        schedule = self._recipe.schedule
        torch.manual_seed((schedule.seed << 32) + step)  # dropout, whatever was drawn before
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate(step)
        precision = PRECISIONS[schedule.precision]
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            logits = self._model(waveforms).logits
        loss = cross_entropy(logits, labels, self._recipe.loss)
        self._optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self._recipe.optimiser.clip_norm)
        if not torch.isfinite(norm):
            raise UserError(f"training diverged at step {step}: lower optimiser.learning_rate")
        self._optimiser.step()
        self._loss_sum, self._loss_steps = self._loss_sum + loss.item(), self._loss_steps + 1
        self._follow(step)

    def _rate(self, step: int) -> float:
        return learning_rate(step, self._recipe.schedule.steps, self._recipe.optimiser)

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Moves the average towards the weights, faster at first, when the weights are still noise."""
        decay = min(self._recipe.schedule.ema, (1 + step) / (10 + step))
        for name, value in self._model.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)

    def averaged(self) -> Detector:
        """Returns the averaged weights in a model that takes whole clips, in eval mode."""
        model = create_model(self._recipe.model.name, **self._recipe.model.overrides)
        model.load_state_dict(self._average)
        return model.eval()

    def _look(self, step: int) -> None:
        """Validates; keeps the weights where they are the best so far, the latest of equals."""
        before = [row[2] for row in self.history]
        eer = self._validate(self.averaged())
        loss = self._loss_sum / self._loss_steps
        self._loss_sum, self._loss_steps = 0.0, 0
        self.history.append((self.step, loss, eer, self._rate(step)))
        tqdm.write(f"step {self.step}: loss {loss:.3f}, dev EER {eer:.2%}", file=sys.stderr)
        if eer <= min(before, default=1.0):
            self._export("best")
        lines = ["\t".join(COLUMNS)] + ["\t".join(f"{value:.6g}" for value in row) for row in self.history]
        write_text(self._folder / "metrics.tsv", "\n".join(lines) + "\n")

    def _export(self, name: str) -> None:
        save_checkpoint(self.averaged(), self._folder / f"{name}.safetensors", step=str(self.step))

    def _save(self) -> None:
        """Writes the state, whole or not at all, and drops the oldest ones."""
        path = self._folder / f"state-{self.step:08d}.pt"
        partial = path.with_suffix(".partial")
        torch.save(self._state(), partial)
        partial.replace(path)
        for old in saved_states(self._folder)[:-STATES_KEPT]:
            old.unlink()

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._identity,
            "step": self.step,
            "model": self._model.state_dict(),
            "average": self._average,
            "optimiser": self._optimiser.state_dict(),
            "history": self.history,
            "loss": (self._loss_sum, self._loss_steps),
        }

    def resume(self) -> None:
        """Takes up the newest saved state of the folder.

        Raises:
            UserError: There is none, or it belongs to another recipe or other conditions.
        """
        states = saved_states(self._folder)
        if not states:
            raise UserError(f"{self._folder} holds no state to resume from; start without --resume")
        state: dict[str, Any] = torch.load(states[-1], weights_only=True)
        if state["identity"] != self._identity:
            key = _first_difference(state["identity"], self._identity)
            raise UserError(
                f"{states[-1]} was trained with other {key}; "
                "resume with the same recipe, steps, seed, threads and recordings"
            )
        self._model.load_state_dict(state["model"])
        self._average = state["average"]
        self._optimiser.load_state_dict(state["optimiser"])
        self.step, self.history = state["step"], state["history"]
        self._loss_sum, self._loss_steps = state["loss"]


def saved_states(folder: Path) -> list[Path]:
    """Returns the states in a folder, the oldest first."""
    return sorted(folder.glob("state-????????.pt"))


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _first_difference(one: Any, other: Any, where: str = "") -> str:
    """Returns the dotted name of the first key in which two nested mappings differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        key = next(key for key in one if one[key] != other[key])
        return _first_difference(one[key], other[key], f"{where}.{key}" if where else str(key))
    return where
