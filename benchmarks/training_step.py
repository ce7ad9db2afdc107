"""Measures how long a step of training takes here, and how many trainings one core keeps fed with batches.

    python benchmarks/training_step.py train/configs/fscnn.yaml --audio DIR --more COPIES --json OUT

For each RECIPE two things take turns, on one thread each: making a batch (crops, their augmentation), which
--workers of the training commands do ahead in other processes, and learning from it (both ways through the
network, optimiser, average). What is learnt from teachers is not in it: the loss is that against the labels.
Times are processor time, which other programs on the machine disturb least.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from antispoof.audio import SAMPLE_RATE
from antispoof.bootstrap import Interval
from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.memory import keep_freed_memory
from antispoof.outputs import refuse_existing
from benchmarks.results_file import gather_conditions, load_average, write_results
from benchmarks.timing.ratios import ratio_interval
from train.loop import PRECISIONS, Run
from train.network import training_mode
from train.ranks import Ranks
from train.recipe import read_recipe, replace_schedule
from train.session import gather, list_recordings

KIND = "training-step"
WARM_UP = 2  # steps: the first ones allocate what later ones use again


@dataclass(frozen=True)
class Step:
    """What a step of one recipe takes, as the results file has it.

    Attributes:
        recipe: The recipe.
        model: Its network.
        precision: What it computes in.
        crops: How many crops a batch has.
        crop_s: How long they are.
        steps: How many the recipe asks for.
        rounds: How many were measured.
        recordings: How many are drawn from.
        batch_ms: To make a batch, median processor time.
        step_ms: To learn from it, likewise.
        batch_share: The first as a share of the second.
    """

    recipe: str
    model: str
    precision: str
    crops: int
    crop_s: float
    steps: int
    rounds: int
    recordings: int
    batch_ms: float
    step_ms: float
    batch_share: Interval


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="training_step.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE", help="a recipe of training, YAML")
    p.add_argument("--audio", type=Path, required=True, metavar="DIR", help="folder of the recordings")
    p.add_argument("--protocol", type=Path, help="the list (default: manifest.tsv in --audio)")
    p.add_argument("--more", type=Path, action="append", default=[], metavar="DIR", help="folder of copies")
    p.add_argument("--precision", choices=sorted(PRECISIONS), help="instead of the recipes'")
    p.add_argument("--rounds", type=int, default=30, metavar="N", help="steps measured (default 30)")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def measure(path: Path, args: argparse.Namespace, folder: Path) -> Step:
    """Returns what a step of one recipe takes.

    Args:
        path: The recipe.
        args: Of the command.
        folder: Where a run may keep its files.
    """
    recipe = replace_schedule(read_recipe(path), precision=args.precision)
    place = argparse.Namespace(
        audio=args.audio, protocol=args.protocol, more=args.more, out=folder, threads=1, device="cpu"
    )
    listed = list_recordings(place, recipe)
    material = gather(place, recipe, Ranks(), listed)
    training = Run(recipe, folder)
    training_mode(training._model, recipe.model.hold_norms)
    size = recipe.schedule.batch
    batches, steps = [], []
    for step in range(WARM_UP + args.rounds):
        began = time.process_time()
        batch = material.batches.batch(step, size)
        made = time.process_time()
        training._train_step(step, batch)
        batches.append(made - began)
        steps.append(time.process_time() - made)
    del batches[:WARM_UP], steps[:WARM_UP]
    return Step(
        recipe=path.stem,
        model=recipe.model.name,
        precision=recipe.schedule.precision,
        crops=size,
        crop_s=recipe.data.crop_samples / SAMPLE_RATE,
        steps=recipe.schedule.steps,
        rounds=args.rounds,
        recordings=len(listed.speech),
        batch_ms=1e3 * median(batches),
        step_ms=1e3 * median(steps),
        batch_share=ratio_interval(batches, steps),
    )


def line(row: Step) -> str:
    """Returns one row as text."""
    feeds = 1 / row.batch_share.estimate
    whole_h = row.steps * (row.step_ms + row.batch_ms) / 3.6e6
    return (
        f"{row.recipe}: {row.crops} crops of {row.crop_s:g} s, batch {row.batch_ms:.0f} ms, "
        f"learning from it {row.step_ms:.0f} ms; one core feeds {feeds:.1f} trainings; "
        f"{row.steps} steps on one core take {whole_h:.1f} h"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.rounds < 1:
        raise UserError(f"--rounds takes at least 1, not {args.rounds}")
    if args.json:
        refuse_existing(args.json, args.force)
    keep_freed_memory()
    conditions = gather_conditions((1,))
    rows = []
    for path in args.recipes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(path, args, Path(folder)))
        print(line(rows[-1]), flush=True)
    if args.json:
        conditions |= {"load_average_after": load_average()}
        write_results(args.json, KIND, conditions, [asdict(row) for row in rows], args.force)
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
