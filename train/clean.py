"""Writes a list without the recordings that an earlier model finds hardest: they tend to be mislabelled.

    python train/clean.py --model PHASE5.safetensors --audio DIR --out cleaned.tsv
    python train/fit.py --config FILE --audio DIR --protocol cleaned.tsv --out RUN

Of the train split, the share --drop of highest loss is left out; all other lines stay as they are. What was
left out is printed, with its loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from antispoof.checkpoint import load_model
from antispoof.errors import UserError, run
from antispoof.memory import keep_freed_memory
from antispoof.models import Detector, DetectorOutput
from antispoof.outputs import make_folder, refuse_existing, write_whole
from antispoof.text_tables import text_lines
from train.dataset import CLASSES, Row, check_split, decode, read_rows
from train.losses import CENTRE, label_loss
from train.recipe import LossRecipe
from train.scoring import CLIPS_AT_ONCE, whole_clips

DROPPED = 0.02


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="clean.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="checkpoint that judges")
    parser.add_argument("--audio", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--protocol", type=Path, help="the list (default: manifest.tsv in --audio)")
    parser.add_argument("--out", type=Path, required=True, help="the new list")
    parser.add_argument("--drop", type=float, default=DROPPED, help="share left out (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace --out")
    args = parser.parse_args(argv)
    check_drop(args.drop)
    if args.threads < 1:
        raise UserError(f"--threads must be at least 1, not {args.threads}")
    refuse_existing(args.out, args.force)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    make_folder(args.out.parent)
    protocol = args.protocol or args.audio / "manifest.tsv"
    for row, loss in clean(load_model(args.model), protocol, args.audio, args.out, args.drop):
        print(f"{row.path}\t{row.label}\t{loss:.3f}")
    return 0


def check_drop(drop: float) -> None:
    """Raises `UserError` where this is no share that could be dropped."""
    if not 0 < drop < 1:
        raise UserError(f"--drop must be between 0 and 1, not {drop:g}")


def clean(
    model: Detector, protocol: Path, audio: Path, out: Path, drop: float = DROPPED
) -> list[tuple[Row, float]]:
    """Writes the list without what the model finds hardest; returns that, the hardest first.

    Raises:
        UserError: The list or a recording cannot be read, so small a share is nothing, or the list would be
            left without one of the classes.
    """
    rows = read_rows(protocol, audio)
    check_split(rows, "train")
    judged = judged_of(rows)
    count = round(drop * len(judged))
    if not count:
        raise UserError(f"{drop:.1%} of {len(judged)} recordings of the train split is none: say --drop")
    heard = [rows[index] for index in judged]
    clips = decode(heard, partial(tqdm, desc="decoding", unit="clip", disable=None), out.parent)
    watch = partial(tqdm, desc="judging", unit="batch", disable=None)
    losses = losses_of(model, heard, clips, watch)
    hardest = np.argsort(-losses, kind="stable")[:count]
    dropped = {judged[place] for place in hardest}
    left = {rows[index].label for index in judged if index not in dropped}
    if missing := [label for label in CLASSES if label not in left]:
        raise UserError(
            f"without the {count} hardest of {len(judged)}, the train split has no {missing[0]} recording to "
            "learn from: --drop less"
        )
    header, *lines = [line for _, line in text_lines(protocol)]
    kept = [line for index, line in enumerate(lines) if index not in dropped]
    write_whole(out, "\n".join([header, *kept]) + "\n")
    return [(rows[judged[place]], float(losses[place])) for place in hardest]


def judged_of(rows: Sequence[Row]) -> list[int]:
    """Returns the indices of the rows that a model judges: those of the train split with a class."""
    return [index for index, row in enumerate(rows) if row.split == "train" and row.label in CLASSES]


def losses_of(
    model: Detector,
    rows: Sequence[Row],
    clips: Sequence[np.ndarray],
    watch: Callable[[Sequence[int]], Iterable[int]],
) -> np.ndarray:
    """Returns the loss of int16 clips (rows,): cross-entropy, or OC-softmax where the score is a cosine."""
    recipe = LossRecipe(name="oc-softmax" if hasattr(model, CENTRE) else "cross-entropy")
    losses = []
    for first in watch(range(0, len(rows), CLIPS_AT_ONCE)):
        [waveforms] = whole_clips(clips[first : first + CLIPS_AT_ONCE], model.clip_samples)
        with torch.inference_mode():
            output = model(torch.from_numpy(waveforms))
            for index, row in enumerate(rows[first : first + CLIPS_AT_ONCE]):
                one = DetectorOutput(*(tensor[index : index + 1] for tensor in output))
                label = torch.tensor([CLASSES.index(row.label)])
                losses.append(float(label_loss(model, one, label, recipe)))
    return np.array(losses)


if __name__ == "__main__":
    run(main)
