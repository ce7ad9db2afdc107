"""Trains a detector on labelled recordings.

    python train/fit.py --config train/configs/aasist-l.yaml --audio DIR --out RUN
    python train/fit.py --config train/configs/aasist-l.yaml --audio DIR --out RUN --resume

Trains on the rows of the list marked ``train`` and validates on those marked ``dev``; the list is
DIR/manifest.tsv unless --protocol names another. RUN then holds run.json (what was trained on what),
metrics.tsv, the last five states, best.safetensors (lowest dev EER) and final.safetensors. A run that was
stopped, even by force, goes on with --resume to the same weights, bit for bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from antispoof.data import NOISE
from antispoof.errors import UserError, run
from antispoof.memory import keep_freed_memory
from train.augment import Augmentation
from train.dataset import Batches, Row, decode, fingerprint, read_rows, training_rows
from train.loop import Run, saved_states, write_text
from train.recipe import Recipe, read_recipe, replace_schedule
from train.scoring import validation_eer

OUTPUTS = ("run.json", "metrics.tsv", "best.safetensors", "final.safetensors")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    if args.threads < 1:
        raise UserError(f"--threads must be at least 1, not {args.threads}")
    recipe = replace_schedule(read_recipe(args.config), args.steps, args.seed)
    _prepare(args.out, args.resume, args.force)
    rows = read_rows(args.protocol or args.audio / "manifest.tsv", args.audio)
    copies = [row for folder in args.more for row in read_rows(folder / "manifest.tsv", folder)]
    speech, noise, rooms = training_rows(rows, recipe.data, copies)
    dev = [row for row in rows if row.split == "dev" and row.label != NOISE]
    if len({row.label for row in dev}) < 2:
        raise UserError("the list needs bona fide speech and spoofs in the split dev to validate on")

    noises, room_clips, dev_clips = (
        decode(part, partial(tqdm, desc=f"decoding {name}", unit="clip", disable=None))
        for name, part in (("noise", noise), ("rooms", rooms), ("dev", dev))
    )
    watch = partial(tqdm, desc="decoding speech", unit="clip", disable=None)
    clips = decode(speech, watch, store=args.out / "clips.int16")
    torch.set_num_threads(args.threads)
    augment = Augmentation(recipe.augment, noises, room_clips)
    batches = Batches(speech, clips, recipe.data, augment, recipe.schedule.seed)
    conditions = {"threads": args.threads, "recordings": fingerprint([*clips, *noises, *room_clips])}
    validate = partial(validation_eer, rows=dev, clips=dev_clips)
    training = Run(recipe, conditions, batches, validate, args.out, args.workers)
    if args.resume:
        training.resume()
    write_text(
        args.out / "run.json",
        json.dumps(_facts(recipe, args.threads, [*speech, *noise, *rooms]), indent=1) + "\n",
    )
    keep_freed_memory()
    training.train(_progress)
    (args.out / "clips.int16").unlink()
    step, loss, eer, _ = min(training.history, key=lambda row: (row[2], -row[0]))
    print(f"best dev EER {eer:.2%} at step {step} (loss {loss:.3f}): {args.out / 'best.safetensors'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True, help="the recipe, YAML")
    parser.add_argument("--audio", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument(
        "--protocol", type=Path, help="the list, tab-separated (default: manifest.tsv in --audio)"
    )
    parser.add_argument(
        "--more", type=Path, action="append", default=[], help="folder of copies that train/vocode.py made"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--force", action="store_true", help="drop the run in --out and start anew")
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that prepare batches (default: %(default)s: none)"
    )
    return parser


def _prepare(folder: Path, resume: bool, force: bool) -> None:
    """Makes the folder of the run; an old run in it is resumed, dropped or refused."""
    if resume and force:
        raise UserError("--resume goes on with a run and --force drops it: give one of them")
    folder.mkdir(parents=True, exist_ok=True)
    old = [*saved_states(folder), *(folder / name for name in OUTPUTS if (folder / name).exists())]
    if old and not (resume or force):
        raise UserError(f"{folder} holds a run already: --resume goes on with it, --force drops it")
    if force:
        for path in old:
            path.unlink()


def _facts(recipe: Recipe, threads: int, rows: Sequence[Row]) -> dict[str, object]:
    """Returns what a model card has to say of a run."""
    counts = Counter((row.label, row.dataset, row.licence) for row in rows)
    data = [
        {"label": label, "dataset": dataset, "licence": licence, "recordings": count}
        for (label, dataset, licence), count in sorted(counts.items())
    ]
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"recipe": dataclasses.asdict(recipe), "threads": threads, "versions": versions, "data": data}


def _progress(steps: Sequence[int], done: int) -> Iterable[int]:
    return tqdm(steps, desc="training", unit="step", initial=done, total=done + len(steps), disable=None)


if __name__ == "__main__":
    run(main)
