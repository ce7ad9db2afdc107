"""Compares two ways of training over several seeds: the EER of each run, the difference with its interval.

    python benchmarks/training.py --base labels-0 --base labels-1 --other taught-0 --other taught-1 \
        --audio DIR --split dev --split test --json OUT

The runs are folders of train/fit.py or train/distill.py. Both ways must have had the same recipe, recordings
and seeds, and may differ in their teachers and in what only those judge; anything else is refused. What is
scored is final.safetensors, the weights after the last step, so that nothing is chosen by the splits that are
reported. Intervals are paired: all runs are measured on the same draws of the trials. The decoded trials lie
in $TMPDIR meanwhile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from antispoof.bootstrap import DRAWS, mean_eer
from antispoof.checkpoint import load_model, weights_hash
from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.metrics import equal_error_rate
from antispoof.outputs import refuse_existing
from antispoof.protocols import BONAFIDE
from benchmarks.results_file import gather_conditions, write_results
from train.dataset import CLASSES, UNLABELLED, Row, check_split, decode, read_rows
from train.scoring import score_clips

KIND = "training"
SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Trained:
    """A finished run: its folder, its seed, who taught it and how, and all else that run.json says of it."""

    folder: Path
    seed: int
    teaching: dict[str, Any]
    facts: dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="training.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, words in (("base", "one way of training"), ("other", "the other way")):
        p.add_argument(
            f"--{name}",
            type=Path,
            action="append",
            required=True,
            metavar="RUN",
            help=f"a run of {words}; give one for each seed",
        )
    p.add_argument("--audio", type=Path, required=True, metavar="DIR", help="folder of the trials' audio")
    p.add_argument("--protocol", type=Path, help="the list (default: manifest.tsv in --audio)")
    p.add_argument(
        "--split", action="append", default=[], metavar="NAME", help="may be repeated (default: dev and test)"
    )
    p.add_argument("--bootstrap", type=int, default=DRAWS, metavar="N", help=f"draws (default {DRAWS})")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def read_run(folder: Path) -> Trained:
    """Returns what a run says of itself.

    Raises:
        UserError: The folder holds no finished run, or its run.json is missing or damaged.
    """
    if not (folder / "final.safetensors").exists():
        raise UserError(f"{folder} holds no finished run: final.safetensors is missing")
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        seed, how = facts["recipe"]["schedule"].pop("seed"), facts["recipe"].pop("distill")
        teachers = facts.pop("teachers", [])
        unlabelled = [one for one in facts["data"] if one["label"] == UNLABELLED]
        facts["data"] = [one for one in facts["data"] if one["label"] != UNLABELLED]
    except OSError as error:
        raise UserError(f"cannot read {folder / 'run.json'}: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{folder / 'run.json'} is damaged: is {folder} a run of train/fit.py?") from None
    teaching = {"teachers": teachers, **({"unlabelled": unlabelled, **how} if teachers else {})}
    return Trained(folder, seed, teaching, facts)


def check_alike(base: Sequence[Trained], other: Sequence[Trained]) -> None:
    """Refuses a comparison in which anything but the teachers differs.

    Raises:
        UserError: It does.
    """
    first = base[0]
    for one in (*base, *other):
        for key in sorted({*first.facts, *one.facts}):
            if first.facts.get(key) != one.facts.get(key):
                raise UserError(f"{one.folder} and {first.folder} differ in more than teachers: {key}")
    for way in (base, other):
        if any(one.teaching != way[0].teaching for one in way):
            raise UserError(f"the runs beside {way[0].folder} were not taught as it was")
    seeds = [sorted(one.seed for one in way) for way in (base, other)]
    if seeds[0] != seeds[1] or len(set(seeds[0])) < len(seeds[0]):
        raise UserError(f"both ways need the same seeds, once each, not {seeds[0]} and {seeds[1]}")


def labelled_rows(listed: Sequence[Row], split: str) -> list[Row]:
    """Returns the trials of a split.

    Raises:
        UserError: A class is missing.
    """
    check_split(listed, split)
    return [row for row in listed if row.split == split and row.label in CLASSES]


def labelled_trials(listed: Sequence[Row], split: str) -> tuple[list[Row], np.ndarray, list[np.ndarray]]:
    """Returns the trials of a split, which are bona fide (trials,), and their int16 clips.

    These are kept in the folder of temporary files.

    Raises:
        UserError: A class is missing.
    """
    rows = labelled_rows(listed, split)
    watch = partial(tqdm, desc=f"decoding {split}", unit="clip", disable=None)
    clips = decode(rows, watch, Path(tempfile.gettempdir()))
    return rows, np.array([row.label == BONAFIDE for row in rows]), clips


def eers_of_seeds(genuine: np.ndarray, scores: np.ndarray, draws: int) -> dict[str, Any]:
    """Returns the EER of each seed and their mean; rates are fractions.

    Args:
        genuine: (trials,) booleans.
        scores: (seeds, trials) or (seeds, trials, ways).
        draws: of the bootstrap.
    """
    values = [
        equal_error_rate(seed[genuine].ravel(), seed[~genuine].ravel(), allow_inverted=True).value
        for seed in scores
    ]
    return {"eers": values, "mean": asdict(mean_eer(scores, genuine, draws=draws))}


def compare(
    split: str, genuine: np.ndarray, base: np.ndarray, other: np.ndarray, draws: int
) -> dict[str, Any]:
    """Returns the figures of one split from scores (seeds, trials); rates are fractions."""
    return {
        "split": split,
        "bonafide": int(genuine.sum()),
        "spoof": int((~genuine).sum()),
        "base": eers_of_seeds(genuine, base, draws),
        "other": eers_of_seeds(genuine, other, draws),
        "difference": asdict(mean_eer(other, genuine, base, draws=draws)),
    }


def line(row: dict[str, Any]) -> str:
    """Returns the figures of one split as text."""
    ways = row["base"], row["other"]
    means = ["{estimate:.1%} ({low:.1%} to {high:.1%})".format(**way["mean"]) for way in ways]
    difference = "{estimate:+.1%} ({low:+.1%} to {high:+.1%})".format(**row["difference"])
    seeds = [" ".join(f"{eer:.1%}" for eer in way["eers"]) for way in ways]
    return (
        f"{row['split']:<6} {means[0]} [{seeds[0]}] -> {means[1]} [{seeds[1]}], "
        f"difference {difference}, {row['bonafide']} bona fide and {row['spoof']} spoofs"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.json:
        refuse_existing(args.json, args.force)
    ways = [sorted(map(read_run, folders), key=lambda one: one.seed) for folders in (args.base, args.other)]
    check_alike(*ways)
    torch.set_num_threads(1)
    models = [[load_model(one.folder / "final.safetensors").eval() for one in way] for way in ways]
    rows = []
    protocol = args.protocol or args.audio / "manifest.tsv"
    listed = read_rows(protocol, args.audio)
    for split in args.split or SPLITS:
        check_split(listed, split)
    for split in args.split or SPLITS:
        _, genuine, clips = labelled_trials(listed, split)
        base, other = (np.stack([score_clips(model, clips) for model in way]) for way in models)
        rows.append(compare(split, genuine, base, other, args.bootstrap))
    print("\n".join(map(line, rows)))
    if args.json:
        conditions = gather_conditions() | {
            **ways[0][0].facts,
            "base": ways[0][0].teaching,
            "other": ways[1][0].teaching,
            "seeds": [one.seed for one in ways[0]],
            "weights_sha256": [[weights_hash(model) for model in way] for way in models],
            "protocol": protocol.name,
        }
        write_results(args.json, KIND, conditions, rows, args.force)
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
