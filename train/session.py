"""What the training commands share: their flags, the folder of a run, the recordings, and the run itself."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from antispoof.checkpoint import load_model
from antispoof.errors import UserError
from antispoof.memory import keep_freed_memory
from antispoof.models import Detector
from antispoof.outputs import make_folder, write_whole
from train.augment import Augmentation, check_augment
from train.batches import Batches, pairs_to_draw, unlabelled_crops
from train.curves import Journal
from train.dataset import CLASSES, Row, check_apart, decode, fingerprint, read_lists, training_rows
from train.loop import PRECISIONS, Dressing, Run
from train.objective import Objective
from train.ranks import Ranks, join_ranks, leave_ranks
from train.recipe import Recipe, read_recipe, replace_schedule
from train.scoring import validation_eer
from train.states import saved_states

FINAL = "final.safetensors"
OUTPUTS = ("run.json", "metrics.tsv", "curves.png", "best.safetensors", FINAL)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of every training command."""
    parser.add_argument("--config", type=Path, required=True, help="the recipe, YAML")
    parser.add_argument("--audio", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument(
        "--protocol",
        type=Path,
        help="the list, tab-separated, with the columns path, label (bonafide, spoof or noise) and split "
        "(train, dev, ...) (default: manifest.tsv in --audio)",
    )
    parser.add_argument(
        "--more", type=Path, action="append", default=[], help="folder of copies that train/vocode.py made"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--start", type=Path, help="checkpoint to go on from, its network instead of the recipe's"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, if there is one")
    parser.add_argument("--force", action="store_true", help="drop the run in --out and start anew")
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that prepare batches (default: %(default)s: none)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--tensorboard", action="store_true", help="log to RUN/tensorboard too")


def recipe_of(args: argparse.Namespace) -> Recipe:
    """Returns the recipe that the command line names, and checks what it says beside.

    Raises:
        UserError: A flag or the recipe makes no sense.
    """
    if args.threads < 1:
        raise UserError(f"--threads must be at least 1, not {args.threads}")
    if args.workers < 0:
        raise UserError(f"--workers must be at least 0, not {args.workers}")
    if args.resume and args.force:
        raise UserError("--resume goes on with a run and --force drops it: give one of them")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here")
    recipe = replace_schedule(
        read_recipe(args.config), steps=args.steps, seed=args.seed, precision=args.precision
    )
    if args.device == "cpu" and recipe.schedule.precision == "bfloat16" and not has_bfloat16():
        print(
            "this processor computes bfloat16 in software, slower than float32: --precision float32",
            file=sys.stderr,
        )
    if args.start is not None:
        network = load_model(args.start)
        model = dataclasses.replace(
            recipe.model,
            name=network.name,
            overrides=network.overrides,
            initial_weights=str(args.start),
        )
        recipe = dataclasses.replace(recipe, model=model)
    return recipe


def has_bfloat16() -> bool:
    """Says whether this processor has instructions for bfloat16, as far as torch tells."""
    capabilities = torch.cpu.get_capabilities()
    # Of others than x86, torch does not tell in one way, and those of today have them.
    x86 = capabilities.get("architecture") == "x86_64"
    return not x86 or any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


@contextmanager
def ranks_of(args: argparse.Namespace) -> Iterator[Ranks]:
    """Joins the processes that torchrun started, if any, and makes the folder of the run."""
    if args.device == "cuda":  # the same bits in every run, as far as the GPU's kernels go
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    ranks = join_ranks(torch.device(args.device))
    try:
        if ranks.first:
            _check_folder(args.out, args.resume, args.force)
        ranks.wait()
        yield ranks
    finally:
        leave_ranks()


def _check_folder(folder: Path, resume: bool, force: bool) -> None:
    """Makes the folder of the run; an old run in it that is neither to be resumed nor dropped is refused."""
    make_folder(folder)
    if _old_run(folder) and not (resume or force):
        raise UserError(f"{folder} holds a run already: --resume goes on with it, --force drops it")
    if resume and not saved_states(folder) and (folder / FINAL).exists():
        raise UserError(f"{folder} holds a finished run and no state to resume from: --force drops it")


def _old_run(folder: Path) -> list[Path]:
    return [*saved_states(folder), *(folder / name for name in OUTPUTS if (folder / name).exists())]


@dataclass(frozen=True)
class Listed:
    """The recordings of a run by what they are for, none of them read yet.

    Attributes:
        speech: To learn from, unlabelled recordings last.
        noise: To add.
        rooms: Impulse responses.
        dev: To validate on.
        unlabelled_share: Of a batch.
    """

    speech: list[Row]
    noise: list[Row]
    rooms: list[Row]
    dev: list[Row]
    unlabelled_share: float


@dataclass(frozen=True)
class Prepared:
    """A run that lacks nothing but audio."""

    args: argparse.Namespace
    recipe: Recipe
    ranks: Ranks
    listed: Listed
    method: dict[str, Any]
    run: Run
    journal: Journal


@dataclass(frozen=True)
class Material:
    """What is trained and validated on.

    Attributes:
        batches: The batches by number.
        clips: The recordings that they are cut from, int16.
        validate: Returns the dev EER of a model.
        recordings: Fingerprint of all audio.
    """

    batches: Batches
    clips: list[np.ndarray]
    validate: Callable[[Detector], float]
    recordings: str


def list_recordings(args: argparse.Namespace, recipe: Recipe, unlabelled: Sequence[Row] = ()) -> Listed:
    """Reads the lists.

    Args:
        args: Of `add_flags`.
        recipe: What to do.
        unlabelled: Speech beside that of the lists.

    Raises:
        UserError: A list is broken, or lacks what the recipe asks for.
    """
    rows, copies = read_lists(args.audio, args.protocol, args.more)
    speech, noise, rooms = training_rows(rows, recipe.data, copies)
    speech += unlabelled
    dev = [row for row in rows if row.split == "dev" and row.label in CLASSES]
    if len({row.label for row in dev}) < 2:
        raise UserError("the list needs bona fide speech and spoofs in the split dev to validate on")

    pairs_to_draw(speech, recipe.data)
    unlabelled_share = recipe.distill.unlabelled_share if unlabelled else 0.0
    labelled = recipe.schedule.batch - unlabelled_crops(recipe.schedule.batch, unlabelled_share)
    if recipe.data.pair_share == 1 and labelled % 2:
        raise UserError(f"data.pair_share: 1 pairs all labelled crops of a batch, but there are {labelled}")
    check_augment(recipe.augment, len(noise), len(rooms))
    return Listed(speech, noise, rooms, dev, unlabelled_share)


def prepare(
    args: argparse.Namespace,
    recipe: Recipe,
    ranks: Ranks,
    listed: Listed,
    *,
    objective: Objective | None = None,
    dressing: Dressing | None = None,
    method: dict[str, Any] | None = None,
) -> Prepared:
    """Builds what learns, before minutes are spent on decoding for a run that is refused.

    Args:
        args: Of `add_flags`.
        recipe: What to do.
        ranks: Who trains.
        listed: What is learnt from.
        objective: What is made smaller; see `Run`.
        dressing: What is put around the network; see `Run`.
        method: What a card has to say of the way of training, where it is not plain fitting.

    Raises:
        UserError: The recipe cannot be carried out, or the run to resume was another one.
    """
    method = method or {}
    journal = Journal(args.out, args.tensorboard and ranks.first)
    training = Run(
        recipe,
        args.out,
        {**_conditions(args, ranks, listed), **method},
        args.workers,
        objective=objective,
        dressing=dressing,
        device=torch.device(args.device),
        ranks=ranks,
        report=journal.add,
    )
    if args.resume and saved_states(args.out):
        training.resume()
    return Prepared(args, recipe, ranks, listed, method, training, journal)


def _conditions(args: argparse.Namespace, ranks: Ranks, listed: Listed) -> dict[str, Any]:
    """Returns what a resumed run must share beside recipe and recordings."""
    heard = [*listed.speech, *listed.dev]
    said = "\n".join(f"{row.label}\t{row.dataset}\t{row.attack}\t{row.source}" for row in heard)
    conditions = {"threads": args.threads, "lists": hashlib.sha256(said.encode()).hexdigest()}
    if args.device != "cpu":
        conditions["device"] = args.device
    if ranks.count > 1:
        conditions["ranks"] = ranks.count
    return conditions


def gather(args: argparse.Namespace, recipe: Recipe, ranks: Ranks, listed: Listed) -> Material:
    """Decodes the recordings.

    Raises:
        UserError: Some cannot be used, or are there twice.
    """
    keep_freed_memory()
    speech, dev = listed.speech, listed.dev
    parts = (listed.noise, listed.rooms, dev, speech)
    watch = partial(tqdm, desc="decoding", unit="clip", disable=None if ranks.first else True)
    decoded = iter(decode([row for part in parts for row in part], watch, args.out))
    noises, rooms, dev_clips, clips = ([next(decoded) for _ in part] for part in parts)
    check_apart([*speech, *dev], [*clips, *dev_clips])
    torch.set_num_threads(args.threads)
    batches = Batches(
        speech,
        clips,
        recipe.data,
        Augmentation(recipe.augment, noises, rooms),
        recipe.schedule.seed,
        listed.unlabelled_share,
        recipe.distill.untouched_share,
    )
    validate = partial(validation_eer, rows=dev, clips=dev_clips)
    return Material(batches, clips, validate, fingerprint([*clips, *noises, *rooms, *dev_clips]))


def carry_out(prepared: Prepared, material: Material) -> None:
    """Trains, from the start or from the last saved state, and says how it went."""
    args, ranks, training, journal = prepared.args, prepared.ranks, prepared.run, prepared.journal
    training.hear(material.batches, material.validate, material.recordings)
    if ranks.first:
        if args.force:  # not before: what is wrong with this run must not cost the old one
            for path in _old_run(args.out):
                path.unlink()
        facts = {**_facts(prepared.recipe, args, prepared.listed), **prepared.method}
        write_whole(args.out / "run.json", json.dumps(facts, indent=1) + "\n")
    journal.open(training.step)
    training.train(progress if ranks.first else lambda steps, _done: steps)
    if ranks.first:
        journal.close(training.history)
        best = min(training.history, key=lambda row: (row.dev_eer, -row.step))
        path = args.out / "best.safetensors"
        print(f"best dev EER {best.dev_eer:.2%} at step {best.step} (loss {best.loss:.3f}): {path}")


def _facts(recipe: Recipe, args: argparse.Namespace, listed: Listed) -> dict[str, object]:
    """Returns what a model card has to say of a run."""
    rows = [*listed.speech, *listed.noise, *listed.rooms]
    counts = Counter((row.label, row.dataset, row.licence) for row in rows)
    data = [
        {"label": label, "dataset": dataset, "licence": licence, "recordings": count}
        for (label, dataset, licence), count in sorted(counts.items())
    ]
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {
        "recipe": dataclasses.asdict(recipe),
        "threads": args.threads,
        "device": args.device,
        "versions": versions,
        "data": data,
    }


def progress(steps: Sequence[int], done: int) -> Iterable[int]:
    """Shows how far the training is."""
    return tqdm(steps, desc="training", unit="step", initial=done, total=done + len(steps), disable=None)
