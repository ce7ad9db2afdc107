"""Measures what a recipe of training is worth: the mean EER over its seeds, clean and corrupted.

    python benchmarks/seeds.py run-0/final.safetensors run-1/final.safetensors run-2/final.safetensors \
        --beside aasist-l=AASIST-L.pth --audio DIR --dataset 'HiFi-GAN-demo*' \
        --condition 'corrupted in six ways' --json OUT

Scores that --cache DIR holds are not computed again: a run that was stopped goes on, and another seed costs
no second hearing of the detectors beside. Their figures that --known RESULTS holds, of the same weights on
the same recordings, are taken over, and the new results say where they are from: other weights of a small
detector need no hours of the large ones. The seeds' own are always measured.

Every SEED is a checkpoint of the same network. Of checkpoints that carry thresholds, the rows also say what
deciding at the first of them gets wrong. There is a row for each split as recorded, one for the trials
of each --dataset (a pattern, both classes) and one for each split in each --condition (--list names them).
Intervals are those of these very weights on other trials; what other seeds would give, the seeds show. The
decoded trials lie in $TMPDIR meanwhile.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from antispoof.bootstrap import DRAWS
from antispoof.channel.conditions import CLEAN, CONDITIONS
from antispoof.checkpoint import read_checkpoint, weights_hash
from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.manifest import Threshold
from antispoof.memory import keep_freed_memory
from antispoof.metrics import error_rates
from antispoof.models import Detector
from antispoof.outputs import refuse_existing
from antispoof.pretrained import decisions_of
from benchmarks.results_file import gather_conditions, read_results, reading, write_results
from benchmarks.score_memory import remembered_scores
from benchmarks.training import SPLITS, eers_of_seeds, labelled_rows, labelled_trials
from train.dataset import Row, fingerprint, read_rows
from train.evaluation import Scorer, load_listener, score_under
from train.scoring import CLIPS_AT_ONCE, score_clips

KIND = "seeds"


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="seeds.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("seeds", nargs="*", type=Path, metavar="SEED", help="checkpoints of one recipe")
    p.add_argument(
        "--beside", action="append", default=[], metavar="NAME=FILE", help="another detector; may be repeated"
    )
    p.add_argument("--audio", type=Path, metavar="DIR", help="folder of the trials' audio")
    p.add_argument("--protocol", type=Path, help="the list (default: manifest.tsv in --audio)")
    p.add_argument(
        "--split", action="append", default=[], metavar="NAME", help="may be repeated (default: dev and test)"
    )
    p.add_argument("--dataset", action="append", default=[], metavar="PATTERN", help="may be repeated")
    p.add_argument("--condition", action="append", default=[], metavar="NAME", help="may be repeated")
    p.add_argument("--list", action="store_true", help="print the conditions and stop")
    p.add_argument("--bootstrap", type=int, default=DRAWS, metavar="N", help=f"draws (default {DRAWS})")
    p.add_argument("--cache", type=Path, metavar="DIR", help="folder of scores that were computed before")
    p.add_argument(
        "--known", action="append", default=[], type=Path, metavar="RESULTS", help="earlier; may be repeated"
    )
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


@dataclass(frozen=True)
class Listener:
    """A network, and the first threshold that its checkpoint carries, if any."""

    model: Detector
    threshold: Threshold | None


def load_detectors(args: argparse.Namespace) -> dict[str, list[Listener]]:
    """Returns the networks by name; the recipe's own, one for each seed, come first.

    Raises:
        UserError: The seeds are of different networks, or two detectors have one name.
    """
    seeds = [_listener(path) for path in args.seeds]
    if len({(seed.model.name, repr(sorted(seed.model.overrides.items()))) for seed in seeds}) > 1:
        raise UserError("the seeds are not of one network; put another detector --beside")
    detectors = {seeds[0].model.name: seeds}
    for words in args.beside:
        name, equals, path = words.partition("=")
        if not (name and equals and path):
            raise UserError(f"--beside {words}: say NAME=FILE")
        if name in detectors:
            raise UserError(f"two detectors are called {name!r}; rename the one --beside")
        detectors[name] = [_listener(Path(path))]
    return detectors


def decided(genuine: np.ndarray, scores: np.ndarray, listeners: Sequence[Listener]) -> list[dict[str, Any]]:
    """Returns what deciding at each seed's own threshold gets wrong; nothing where one has none.

    Args:
        genuine: (trials,) booleans.
        scores: (seeds, trials, ways).
        listeners: one for each seed.
    """
    points = [one.threshold for one in listeners if one.threshold]
    if len(points) < len(listeners):
        return []
    rates = [
        error_rates(seed[genuine].ravel(), seed[~genuine].ravel(), point.score)
        for seed, point in zip(scores, points, strict=True)
    ]
    return [{"threshold": asdict(point), **asdict(rate)} for point, rate in zip(points, rates, strict=True)]


def _listener(path: Path) -> Listener:
    _, thresholds = decisions_of(read_checkpoint(path))
    return Listener(load_listener(path), thresholds[0] if thresholds else None)


def remembering(folder: Path | None) -> Scorer:
    """Returns what scores int16 clips with a network and remembers the scores in a folder, if there is one.

    They are remembered by all that they depend on: the network, its weights, how much it hears, and every
    sample of the clips.
    """

    def score(model: Detector, clips: Sequence[np.ndarray]) -> np.ndarray:
        key = f"{model.name} {weights_hash(model)} {model.clip_samples} {fingerprint(clips)}"
        return remembered_scores(
            folder,
            key,
            [str(place) for place in range(len(clips))],
            lambda places: score_clips(model, [clips[place] for place in places]),
            at_once=CLIPS_AT_ONCE,
        )

    return score


def chosen_trials(rows: Sequence[Row], patterns: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the trials of each pattern that any data set fits, (trials,) booleans; first all of them.

    Raises:
        UserError: One class is missing among them.
    """
    yield "", np.ones(len(rows), dtype=bool)
    for pattern in patterns:
        chosen = np.array([fnmatchcase(row.dataset, pattern) for row in rows])
        labels = {row.label for row, kept in zip(rows, chosen, strict=True) if kept}
        if len(labels) == 1:
            raise UserError(f"the data sets {pattern!r} have no trials of both classes in one split")
        if labels:
            yield pattern, chosen


Sets = Sequence[tuple[str, np.ndarray]]  # name of a set, and which of the trials it is, (trials,) booleans
Trials = tuple[str, str]  # of a row: condition, and sha256 of the recordings and their labels


def known_figures(
    documents: Sequence[dict[str, Any]], name: str, hashes: list[str], rows: Sequence[Trials]
) -> list[dict[str, Any]]:
    """Returns what earlier results hold of a detector's weights on each row, and under what it was measured.

    Nothing unless they hold it of all rows.
    """
    same = [
        document["conditions"]
        | {trials_of(row): row["detectors"][name] for row in document["rows"] if name in row["detectors"]}
        for document in documents
        if document["conditions"]["weights_sha256"].get(name) == hashes
    ]
    holders = [next((one for one in same if wanted in one), None) for wanted in rows]
    return [
        # Files of before the decisions have none.
        {"decided": [], "measured": {key: one[key] for key in ("date", "cpu", "packages")}, **one[wanted]}
        for one, wanted in zip(holders, rows, strict=True)
        if one and None not in holders
    ]


def trials_of(row: dict[str, Any]) -> Trials:
    """Returns what a row was measured on."""
    return row["condition"], row.get("trials_sha256", "")  # files of before it are of no known trials


def line(row: dict[str, Any]) -> str:
    """Returns the figures of one row as text."""
    figures = []
    for name, found in row["detectors"].items():
        mean = "{estimate:.1%} ({low:.1%} to {high:.1%})".format(**found["mean"])
        each = " ".join(f"{eer:.1%}" for eer in found["eers"])
        figures.append(f"{name} {mean}" + (f" [{each}]" if len(found["eers"]) > 1 else ""))
        for one in found["decided"]:
            figures[-1] += ", refuses {miss:.1%}, passes {false_alarm:.1%}".format(**one)
    trials = f"{row['bonafide']} bona fide and {row['spoof']} spoofs"
    return f"{row['split']}, {row['dataset'] or row['condition']}, {trials}: {'; '.join(figures)}"


def check_trials(listed: Sequence[Row], splits: Sequence[str], patterns: Sequence[str]) -> None:
    """Complains of trials that are not there before anything is heard.

    Raises:
        UserError: A split or a pattern has no trials of both classes.
    """
    for split in splits:
        deque(chosen_trials(labelled_rows(listed, split), patterns), maxlen=0)
    for pattern in patterns:
        if not any(row.split in splits and fnmatchcase(row.dataset, pattern) for row in listed):
            raise UserError(f"no data set of the list is called {pattern!r}")


def bare_rows(
    split: str, condition: str, genuine: np.ndarray, clips: Sequence[np.ndarray], sets: Sets
) -> list[dict[str, Any]]:
    """Returns what each row of the results is measured on, without the figures."""
    return [
        {
            "split": split,
            "condition": condition,
            "dataset": pattern,
            "bonafide": int(genuine[chosen].sum()),
            "spoof": int((~genuine[chosen]).sum()),
            "trials_sha256": fingerprint(
                part
                for place in np.flatnonzero(chosen)
                for part in (genuine[place : place + 1], clips[place])
            ),
        }
        for pattern, chosen in sets
    ]


def figures_of(
    genuine: np.ndarray, scores: np.ndarray, listeners: Sequence[Listener], sets: Sets, draws: int
) -> list[dict[str, Any]]:
    """Returns a detector's figures on each set of the trials.

    Args:
        genuine: (trials,) booleans.
        scores: (seeds, trials, ways).
        listeners: one for each seed.
        sets: Names of the sets and their trials.
        draws: Of the bootstrap.
    """
    return [
        {
            **eers_of_seeds(genuine[chosen], scores[:, chosen], draws),
            "decided": decided(genuine[chosen], scores[:, chosen], listeners),
        }
        for _, chosen in sets
    ]


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.list:
        print("\n".join(CONDITIONS))
        return EXIT_DONE
    if not args.seeds or args.audio is None:
        raise UserError("name the checkpoints and their --audio (--list prints the conditions)")
    if unknown := [name for name in args.condition if name not in CONDITIONS]:
        raise UserError(f"no condition is called {unknown[0]!r}; --list names them")
    if args.json:
        refuse_existing(args.json, args.force)
    known = [read_results(path, KIND) for path in args.known]
    keep_freed_memory()
    torch.set_num_threads(1)
    detectors = load_detectors(args)
    hashes = {name: [weights_hash(one.model) for one in own] for name, own in detectors.items()}
    score = remembering(args.cache)
    protocol = args.protocol or args.audio / "manifest.tsv"
    listed = read_rows(protocol, args.audio)
    splits = args.split or SPLITS
    check_trials(listed, splits, args.dataset)
    measured = []
    for split in splits:
        rows, genuine, clips = labelled_trials(listed, split)
        for condition in [CLEAN, *args.condition]:
            sets = list(chosen_trials(rows, args.dataset if condition == CLEAN else ()))
            of_condition = bare_rows(split, condition, genuine, clips, sets)
            wanted = [trials_of(row) for row in of_condition]
            with reading("a file of --known"):
                figures = {
                    name: known_figures(known, name, hashes[name], wanted) for name in list(detectors)[1:]
                }
            listening = {name: own for name, own in detectors.items() if not figures.get(name)}
            models = [one.model for own in listening.values() for one in own]
            watch = partial(tqdm, desc=f"{split}, {condition}", unit="group", disable=None)
            heard = iter(score_under(models, clips, condition, score, watch) if models else ())
            for name, own in listening.items():
                scores = np.stack([next(heard) for _ in own])
                figures[name] = figures_of(genuine, scores, own, sets, args.bootstrap)
            for place, row in enumerate(of_condition):
                row["detectors"] = {name: figures[name][place] for name in detectors}
                print(line(row), flush=True)
            measured += of_condition
    if args.json:
        conditions = gather_conditions() | {"weights_sha256": hashes, "protocol": protocol.name}
        write_results(args.json, KIND, conditions, measured, args.force)
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
