"""Trains a residual encoder for its integers, on the calibration clips and without labels.

Eight bits have one step for loud and quiet speech, and the step that fits the loudest is as large as what
AASIST hears in a pause. Choosing ranges better does not help (narrower ones cut peaks off, which costs more),
nor does choosing how weights are rounded (they make a twentieth of the error). What helps is to let weights,
biases, steps and zeros find numbers that lose less, such that the encoder's map stays that of the float one:

    1. run the float graph to the encoder's entry, once
    2. give tensors that are added to each other one step, so that their integers add up exactly
    3. train on random stretches of the clips, by the relative error of the map (`train`)
    4. put what was learned in the place of the graph's constants and grids

The same clips and seed give the same file on the same machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from onnx import ModelProto, NodeProto, ValueInfoProto
from torch import Tensor, nn
from tqdm import tqdm

from antispoof.errors import UserError
from quantize.calibration import Grid
from quantize.fake_integers import OPERATIONS, IntegerEncoder, Rounding, Spread, channels_last, plain
from quantize.onnx_graph import OnnxGraph
from quantize.scope import layers_in_scope
from quantize.static_int import SPLITS, Calibrated, Region, Rewriter, find_region, saturates
from runtimes.ort import open_session

WARM_UP = 0.1  # of the updates: Adam's first steps, all of the same size, would undo what calibration found


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        updates: Of the weights.
        stretches: In one update.
        columns: Of the encoder's entry, in one stretch.
        weight_rate: Adam's first learning rate, of weights and biases.
        step_rate: Of the logarithms of steps.
        zero_rate: Of zeros, in integers.
        inner: Weight of the error of the poolings' results, beside that of the last one.
        seed: Of the stretches.
    """

    updates: int = 400
    stretches: int = 4
    columns: int = 2430
    weight_rate: float = 4e-4
    step_rate: float = 1.5e-3
    zero_rate: float = 0.05
    inner: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Encoder:
    """A connected part of the region: what enters it, its nodes in order, and its last tensor."""

    entry: str
    nodes: tuple[NodeProto, ...]

    @property
    def result(self) -> str:
        """The last tensor."""
        return self.nodes[-1].output[0]

    @property
    def stages(self) -> list[str]:
        """The results of poolings, or the last tensor where there is none."""
        pooled = [node.output[0] for node in self.nodes if node.op_type == "MaxPool"]
        return list(dict.fromkeys([*pooled, self.result]))


def find_encoders(graph: OnnxGraph, region: Region) -> list[Encoder]:
    """Returns the parts of a region with one entry, several convolutions and one end, in graph order."""
    inside = {id(node) for node in region.inside} | {id(layer.node) for layer in region.layers}
    found = []
    for entry in region.entries:
        known, nodes = {entry}, []
        for node in graph.nodes:
            data = node.input[:1] if node.op_type == "Conv" else node.input
            if id(node) in inside and node.op_type in OPERATIONS and known >= set(data):
                nodes.append(node)
                known |= set(node.output)
        ends = [node for node in nodes if not any(node.output[0] in other.input for other in nodes)]
        convolutions = sum(node.op_type == "Conv" for node in nodes)
        if convolutions > 1 and len(ends) == 1 and ends[0] is nodes[-1]:
            found.append(Encoder(entry, tuple(nodes)))
    return found


def learn(calibrated: Calibrated, clips: np.ndarray, schedule: Schedule | None = None) -> Calibrated:
    """Returns the model with trained weights and grids; as it was where it has no encoder.

    Args:
        calibrated: What the training begins with.
        clips: ``(clips, samples)`` to train on.
        schedule: How long and how fast.

    Raises:
        UserError: Two convolutions share their weights.
    """
    graph = OnnxGraph(calibrated.model)
    layers = layers_in_scope(graph, calibrated.recipe.everything)
    kept = [layer for layer in layers if layer.node.output[0] not in calibrated.small]
    integers = find_region(graph, kept)
    everything = find_region(graph, layers)
    encoders = find_encoders(graph, everything)
    weights = [node.input[1] for one in encoders for node in one.nodes if node.op_type == "Conv"]
    if len(set(weights)) < len(weights):
        raise UserError("convolutions share weights here, as in tiles of time, and cannot be trained apart")
    for encoder in encoders:
        calibrated = _learn_one(calibrated, encoder, integers, clips, schedule or Schedule())
    return calibrated


def _learn_one(
    calibrated: Calibrated, encoder: Encoder, region: Region, clips: np.ndarray, schedule: Schedule
) -> Calibrated:
    graph = OnnxGraph(calibrated.model)
    constants = {
        name: torch.from_numpy(np.array(graph.constants[name]))
        for node in encoder.nodes
        if node.op_type == "Conv"
        for name in node.input[1:]
    }
    entries = entry_values(calibrated.model, encoder.entry, clips)
    rewriter = Rewriter(graph, calibrated.recipe, region, calibrated.grids, calibrated.largest)
    roundings = roundings_of(encoder, region, rewriter)
    student = IntegerEncoder(encoder.nodes, constants, roundings, calibrated.recipe.weight_limit)
    train(student, constants, encoder, entries, schedule)
    for name, values in student.trained().items():
        graph.constant(values.numpy(), name)
    grids = dict(calibrated.grids) | {name: rounding.grid() for name, rounding in roundings.items()}
    largest = dict(calibrated.largest)
    if encoder.entry in rewriter.split_entries():
        largest[encoder.entry] = roundings[encoder.entry].grid().scale * roundings[encoder.entry].bounds[1]
    return replace(calibrated, model=graph.finish(), grids=grids, largest=largest)


def entry_values(model: ModelProto, entry: str, clips: np.ndarray) -> Tensor:
    """Returns what enters the encoder for each clip, ``(clips, channels, ..., time)``."""
    observed = ModelProto.FromString(model.SerializeToString())
    del observed.graph.output[:]
    observed.graph.output.append(ValueInfoProto(name=entry))
    session = open_session(observed.SerializeToString(), threads=1)
    name = observed.graph.input[0].name
    return torch.from_numpy(np.concatenate([session.run([entry], {name: clip[None]})[0] for clip in clips]))


def roundings_of(encoder: Encoder, region: Region, rewriter: Rewriter) -> dict[str, Rounding]:
    """Returns the roundings of an encoder's tensors, with shared steps where tensors are added.

    A tensor that a ReLU, a pooling or a lookup ties to another has none of its own.
    """
    tied, from_zero = set(), set()
    for node in encoder.nodes:
        if node.op_type == "MaxPool" and node.input[0] in rewriter.grids:
            tied.add(node.input[0])
        if node.op_type == "Elu" and rewriter.looks_up(node):
            tied.add(node.output[0])
        if saturates(node, rewriter.grids):
            tied.add(node.input[0])
            from_zero.add(node.output[0])
    names = [name for name in region.tensors if any(name in node.output for node in encoder.nodes)]
    free = [name for name in names if name not in tied]
    together = _added(encoder.nodes, names)
    scales: dict[str, list[float]] = {}
    for name in free:
        scales.setdefault(together[name], []).append(rewriter.grids[name].scale)
    steps = {group: nn.Parameter(torch.tensor(np.log(every).mean())) for group, every in scales.items()}
    roundings = {
        name: Rounding(steps[together[name]], _spread(rewriter.grids[name], steps[together[name]]))
        for name in free
    }
    for name in from_zero & set(roundings):  # elsewhere it would not saturate at 0
        grid = rewriter.grids[name]
        roundings[name] = Rounding(steps[together[name]], Spread(grid.low, grid.high, float(grid.low)))
        roundings[name].zero.requires_grad_(False)
    if encoder.entry in rewriter.split_entries():
        steps_of_slice = rewriter.split_steps
        step = np.log(rewriter.split_step(encoder.entry))
        spread = Spread(-steps_of_slice, steps_of_slice * (SPLITS - 1), 0.0)
        roundings[encoder.entry] = Rounding(nn.Parameter(torch.tensor(step)), spread)
        roundings[encoder.entry].zero.requires_grad_(False)
    elif encoder.entry in rewriter.grids:
        grid = rewriter.grids[encoder.entry]
        log_step = nn.Parameter(torch.tensor(np.log(grid.scale)))
        roundings[encoder.entry] = Rounding(log_step, Spread(grid.low, grid.high, float(grid.zero)))
    return roundings


def _spread(grid: Grid, log_step: Tensor) -> Spread:
    """Returns where 0 lies once the step is that of a group: the middle of the range stays where it was."""
    middle = ((grid.low + grid.high) / 2 - grid.zero) * grid.scale
    zero = (grid.low + grid.high) / 2 - middle / float(log_step.detach().exp())
    return Spread(grid.low, grid.high, min(max(zero, grid.low), grid.high))


def _added(nodes: Iterable[NodeProto], names: Sequence[str]) -> dict[str, str]:
    """Returns for every tensor the one that stands for all that sums and poolings connect it with."""
    group = {name: name for name in names}
    for node in nodes:
        if node.op_type in ("Add", "MaxPool", "Relu"):
            joined = [name for name in (*node.input, *node.output) if name in group]
            old = {group[name] for name in joined}
            group = {name: group[joined[0]] if of in old else of for name, of in group.items()}
    return group


def train(
    student: IntegerEncoder,
    constants: dict[str, Tensor],
    encoder: Encoder,
    entries: Tensor,
    schedule: Schedule,
) -> list[float]:
    """Trains the integer encoder to give the float one's map; returns the relative error of each update."""
    random = np.random.default_rng(schedule.seed)
    steps = {id(one.log_step): one.log_step for one in student.roundings.values()}
    optimizer = torch.optim.Adam(
        [
            {"params": list(student.weights.values()), "lr": schedule.weight_rate},
            {"params": list(steps.values()), "lr": schedule.step_rate},
            {"params": [one.zero for one in student.roundings.values()], "lr": schedule.zero_rate},
        ],
    )
    slower = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=schedule.updates,
        pct_start=WARM_UP,
    )
    columns = min(schedule.columns, entries.shape[-1])
    errors = []
    bar = tqdm(range(schedule.updates), desc="learning", unit="update", file=sys.stderr, disable=None)
    for _ in bar:
        chosen = random.integers(len(entries), size=schedule.stretches)
        starts = random.integers(entries.shape[-1] - columns + 1, size=schedule.stretches)
        stretch = channels_last(
            torch.stack([entries[i, ..., at : at + columns] for i, at in zip(chosen, starts, strict=True)])
        )
        with torch.no_grad():
            wanted = plain(encoder.nodes, constants, stretch, encoder.entry)
        found = student(stretch, encoder.entry)
        relative = {name: relative_error(found[name], wanted[name]) for name in encoder.stages}
        last = relative[encoder.result]
        loss = last + schedule.inner * sum(relative[name] for name in encoder.stages[:-1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
        errors.append(float(last.detach()) ** 0.5)
        if len(errors) % 20 == 0:
            bar.set_postfix(error=f"{np.mean(errors[-20:]):.3f}")
    return errors


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Returns the mean over a batch of each one's squared error as a share of its mean square."""
    axes = tuple(range(1, wanted.dim()))
    return (((found - wanted) ** 2).mean(axes) / (wanted**2).mean(axes).clamp(min=1e-12)).mean()
