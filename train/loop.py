"""The training loop, and everything that lets a run be killed at any moment and go on to the same last bit.

A step is a function of the state before it and of its number: the batch and the dropout are drawn from
(seed, step), so no iterator and no random generator has to be saved beside weights, optimiser and average.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from antispoof.checkpoint import save_checkpoint
from antispoof.errors import UserError
from antispoof.models import Detector
from antispoof.outputs import write_whole
from train.adversarial import Adversary
from train.batches import Batch, Batches
from train.losses import check_loss
from train.mixup import Heard, mix
from train.network import build_model, training_mode, whole_clip_model
from train.objective import FromLabels, Objective
from train.optimiser import build_optimiser, kept_share, learning_rate, set_rate, swa_start
from train.ranks import Ranks, share_norms
from train.recipe import Recipe
from train.states import check_same, newest_state, save_state

NORM_BATCHES = 100  # that the statistics of batch norms are taken of
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Progress(NamedTuple):
    """One look at a run: a row of metrics.tsv."""

    step: int
    loss: float
    dev_eer: float
    learning_rate: float


class BatchesByStep(Dataset[Batch]):
    """The batches of some steps, for a loader that fetches them in other processes."""

    def __init__(self, batches: Batches, steps: range, size: int) -> None:
        self._batches, self._steps, self._size = batches, steps, size

    def __len__(self) -> int:
        """Returns the number of batches."""
        return len(self._steps)

    def __getitem__(self, index: int) -> Batch:
        """Returns the batch of the ``index``-th of the steps."""
        return self._batches.batch(self._steps[index], self._size)


class Dressing(nn.Module):
    """What is put around a network while it trains, such as rounding; its buffers are saved with the run."""

    def dress(self, model: Detector) -> None:
        """Changes, in place, what ``model`` computes, but not the names of its weights."""


class Run:
    """One training run and the folder that it lives in.

    Attributes:
        step: How many steps are done.
        history: The rows of metrics.tsv so far.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        conditions: dict[str, Any] | None = None,
        workers: int = 0,
        *,
        objective: Objective | None = None,
        dressing: Dressing | None = None,
        device: torch.device | None = None,
        ranks: Ranks | None = None,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Builds all that learns, at step 0. Audio comes later (`hear`), so that what is refused is at once.

        Args:
            recipe: What to do.
            folder: Where states, weights and metrics go.
            conditions: What else the result depends on beside the recordings, such as the number of threads;
                kept with every state.
            workers: Processes that prepare batches ahead; the batches are the same for any number.
            objective: What is made smaller; the recipe's loss against the labels if none is given.
            dressing: What is put around the network.
            device: Where it is computed.
            ranks: The processes that share the work.
            report: Told of every validation.

        Raises:
            UserError: The recipe asks for what its network, this number of ranks or the objective cannot do.
        """
        self._recipe, self._folder = recipe, folder
        self._identity = {"recipe": dataclasses.asdict(recipe), **(conditions or {})}
        self._resumed: dict[str, Any] | None = None  # the identity of the state that it goes on from
        self._workers, self._report = workers, report
        self._device, self._ranks = device or torch.device("cpu"), ranks or Ranks()
        if recipe.schedule.batch % (recipe.schedule.accumulate * self._ranks.count):
            raise UserError("schedule.batch must be a multiple of schedule.accumulate times the ranks")
        self._model = build_model(recipe).to(self._device)
        check_loss(self._model, recipe.loss)
        if self._ranks.count > 1:
            share_norms(self._model)
        self._adversary = Adversary(self._model, recipe.adversarial) if recipe.adversarial.epsilon else None
        self._dressing = (dressing or Dressing()).to(self._device)
        self._dressing.dress(self._model)
        self._average = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._objective = (objective or FromLabels(recipe.loss)).to(self._device)
        self._objective.watch(self._model)
        self._optimiser = build_optimiser([self._model, self._objective], recipe.optimiser)
        float16 = recipe.schedule.precision == "float16"
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=float16)
        self.step = 0
        self.history: list[Progress] = []
        self._loss_sum, self._loss_steps = 0.0, 0

    def hear(self, batches: Batches, validate: Callable[[Detector], float], recordings: str = "") -> None:
        """Takes what is learnt from.

        Args:
            batches: Where the audio comes from.
            validate: Returns the dev EER of a model that takes whole clips.
            recordings: The fingerprint of all audio; kept with every state.

        Raises:
            UserError: The run was resumed, and had other recordings before.
        """
        self._batches, self._validate = batches, validate
        self._identity["recordings"] = recordings
        if self._resumed is not None:
            check_same(self._folder, self._resumed, self._identity)

    def train(self, watch: Callable[[Sequence[int], int], Iterable[int]]) -> None:
        """Trains to the last step of the recipe.

        Args:
            watch: Wraps the numbers of the steps to show the progress; told how many are done already.
        """
        schedule = self._recipe.schedule
        training_mode(self._model, self._recipe.model.hold_norms)
        steps = range(self.step, schedule.steps)
        for step, batch in zip(watch(steps, self.step), self._fetch(steps), strict=False):
            self._train_step(step, batch)
            self.step = step + 1
            last = self.step == schedule.steps
            if last or self.step % schedule.validate_every == 0:
                self._renew_norms()
                self._look(step)
            if self._ranks.first and (last or self.step % schedule.save_every == 0):
                save_state(self._folder, self._state())
        self._export("final")
        self._ranks.wait()

    def _fetch(self, steps: range) -> Iterator[Batch]:
        """Yields the batch of each step; with several ranks, each prepares every n-th."""
        size, count = self._recipe.schedule.batch, self._ranks.count
        own = BatchesByStep(self._batches, steps[self._ranks.rank :: count], size)
        ahead = iter(DataLoader(own, batch_size=None, num_workers=self._workers))
        for index in range(len(steps)):
            owner = index % count
            if owner == self._ranks.rank:
                batch = Batch(*(tensor.to(self._device) for tensor in next(ahead)))
            else:
                crops = torch.empty(size, self._batches.crop_samples, device=self._device)
                labels, clips = torch.empty(2, size, dtype=torch.long, device=self._device)
                batch = Batch(crops, labels, clips)
            self._ranks.hand_round(batch, owner)
            yield batch

    def _train_step(self, step: int, batch: Batch) -> None:
        schedule, ranks = self._recipe.schedule, self._ranks
        torch.manual_seed((schedule.seed << 32) + ranks.seed(step))  # dropout, whatever was drawn before
        set_rate(self._optimiser, self._rate(step))
        self._optimiser.zero_grad()
        loss = torch.zeros((), device=self._device)
        for portion in self._portions(step, batch):
            loss += self._learn_from(portion) / schedule.accumulate
        parameters = [*self._model.parameters(), *self._objective.parameters()]
        if ranks.count > 1:
            for parameter in parameters:  # a layer that was dropped here may have been heard elsewhere
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        ranks.average(p.grad for p in parameters if p.grad is not None)
        ranks.average([loss])
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(parameters, self._recipe.optimiser.clip_norm)
        # A scaler meets infinite gradients on its way to the right scale, and leaves such a step out.
        if not torch.isfinite(loss if self._scaler.is_enabled() else norm):
            raise UserError(f"training diverged at step {step}: lower optimiser.learning_rate")
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._loss_sum, self._loss_steps = self._loss_sum + loss.item(), self._loss_steps + 1
        self._follow(step)

    def _portions(self, step: int, batch: Batch) -> Iterator[Heard]:
        """Yields what this rank hears of a batch at a time."""
        schedule, ranks = self._recipe.schedule, self._ranks
        heard = mix(batch, self._recipe.augment.mixup_alpha, schedule.seed, step)
        for index in range(schedule.accumulate):
            yield heard.part(index, schedule.accumulate).part(ranks.rank, ranks.count)

    def _learn_from(self, portion: Heard) -> Tensor:
        """Adds the gradients of a portion to those that are there; returns its loss, without gradient."""
        share = 1 / self._recipe.schedule.accumulate
        with self._adversary.listening() if self._adversary else nullcontext():
            loss = self._loss(portion)
        self._scaler.scale(loss * share).backward()
        if self._adversary:
            with self._adversary.pushing():
                self._scaler.scale(self._loss(portion) * share).backward()
        return loss.detach()

    def _loss(self, portion: Heard) -> Tensor:
        precision = PRECISIONS[self._recipe.schedule.precision]
        with torch.autocast(self._device.type, precision, enabled=precision != torch.float32):
            output = self._model(portion.waveforms)
        loss: Tensor = self._objective(self._model, portion, output)
        return loss

    def _rate(self, step: int) -> float:
        return learning_rate(step, self._recipe.schedule.steps, self._recipe.optimiser)

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Moves the average towards the weights."""
        kept = kept_share(step, self._recipe.schedule)
        for name, value in self._model.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, 1 - kept)
            else:
                self._average[name].copy_(value)

    def _renew_norms(self) -> None:
        """Gives a plain mean of weights the statistics of its own batch norms, those of the last batches.

        A mean of theirs is not that (arXiv 1803.05407, algorithm 1, last line).
        """
        schedule = self._recipe.schedule
        if self.step <= swa_start(schedule) or self._recipe.model.hold_norms:
            return
        weights = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(self._average)
        torch.manual_seed((schedule.seed << 32) + self._ranks.seed(self.step))
        steps = range(max(0, self.step - NORM_BATCHES), self.step)
        batches = zip(steps, self._fetch(steps), strict=True)
        update_bn(
            (part.waveforms for step, batch in batches for part in self._portions(step, batch)), self._model
        )
        self._average = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(weights)

    def averaged(self) -> Detector:
        """Returns the averaged weights in a model that takes whole clips, in eval mode."""
        return whole_clip_model(self._recipe.model, self._average)

    def _look(self, step: int) -> None:
        """Validates; keeps the weights where they are the best so far, the latest of equals."""
        if not self._ranks.first:
            return
        before = [row.dev_eer for row in self.history]
        model = self.averaged()
        self._dressing.dress(model)
        row = Progress(self.step, self._loss_sum / self._loss_steps, self._validate(model), self._rate(step))
        self._loss_sum, self._loss_steps = 0.0, 0
        self.history.append(row)
        tqdm.write(f"step {row.step}: loss {row.loss:.3f}, dev EER {row.dev_eer:.2%}", file=sys.stderr)
        if row.dev_eer <= min(before, default=1.0):
            self._export("best")
        lines = ["\t".join(Progress._fields)]
        lines += ["\t".join(f"{value:.6g}" for value in row) for row in self.history]
        write_whole(self._folder / "metrics.tsv", "\n".join(lines) + "\n")
        self._report(row)

    def _export(self, name: str) -> None:
        if self._ranks.first:
            save_checkpoint(self.averaged(), self._folder / f"{name}.safetensors", step=str(self.step))

    def _parts(self) -> dict[str, Any]:
        """Returns what has a state beyond weights and optimiser, where the run uses it."""
        parts: dict[str, Any] = {
            "objective": self._objective,
            "dressing": self._dressing,
            "scaler": self._scaler,
        }
        return {name: part for name, part in parts.items() if part.state_dict()}

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._identity,
            "step": self.step,
            "model": self._model.state_dict(),
            "average": self._average,
            "optimiser": self._optimiser.state_dict(),
            "history": [tuple(row) for row in self.history],
            "loss": (self._loss_sum, self._loss_steps),
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def resume(self) -> None:
        """Takes up the newest saved state of the folder, before `hear`.

        Raises:
            UserError: There is none, or it belongs to another recipe or other conditions.
        """
        state = newest_state(self._folder, self._device)
        self._resumed = state["identity"]
        known = {name: value for name, value in self._resumed.items() if name != "recordings"}
        check_same(self._folder, known, self._identity)
        self._model.load_state_dict(state["model"])
        self._average = state["average"]
        self._optimiser.load_state_dict(state["optimiser"])
        self.step, self.history = state["step"], [Progress(*row) for row in state["history"]]
        self._loss_sum, self._loss_steps = state["loss"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
