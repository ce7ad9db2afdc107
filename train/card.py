"""Measures a finished run and writes what is shipped: the weights and their model card.

    python train/card.py RUN --audio DIR --out antispoof/checkpoints/aasist-l.safetensors \
        --licence CC-BY-4.0 --notes train/configs/aasist-l.notes.md
    python train/card.py antispoof/checkpoints/aasist-l.safetensors --audio DIR --force    # measures it anew

The card (the same name, ending in .md) says what the weights were trained on, how, and how well they do on
the splits dev and test of the list, as recorded and degraded. Calibration and thresholds, fitted on dev as
recorded, in six mishaps and without silence, go into the weights' file, and from there into what is exported
of it; the card says what deciding at each threshold gets wrong. --notes is the part that no measurement can
write: what the model is for, and what it is bad at.

Of weights that have a card, everything else stays as it is: weights, licence, recipe, and the notes unless
others are given.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from antispoof.channel.conditions import CLEAN, CONDITIONS, FITTED
from antispoof.checkpoint import read_checkpoint, save_checkpoint, weights_hash
from antispoof.errors import UserError, one_line, run
from antispoof.memory import keep_freed_memory
from antispoof.metrics import error_rates
from antispoof.models import Detector
from antispoof.outputs import make_folder, refuse_existing, write_whole
from antispoof.thresholds import Decisions, fit_decisions
from train.dataset import CLASSES, Row, check_split, decode, read_rows
from train.evaluation import Figure, figure_of, load_listener, score_under
from train.scoring import split_by_class

CHOSEN = "The step was chosen by the EER on dev, which flatters that figure."
HEAD = re.compile(r"(?P<head># .*?\nsha256 of the weights [^\n]*)\n\n(?P<notes>.*)", re.DOTALL)
MEASURED, TRAINING = "\n## Measured\n", "\n## Training\n"
CONDITIONS_OF = {"dev": FITTED, "test": tuple(CONDITIONS)}


@dataclass(frozen=True)
class Shipment:
    """What is shipped, but for what is measured.

    Attributes:
        model: With its weights.
        metadata: Of the weights' file.
        head: The card's first lines.
        notes: What no measurement can write.
        rest: The card from its section on training on.
    """

    model: Detector
    metadata: Mapping[str, str]
    head: str
    notes: str
    rest: str

    def card(self, measured: str) -> str:
        """Returns the model card as Markdown."""
        return f"{self.head}\n\n{self.notes}\n{MEASURED}\n{measured}\n{self.rest}"


@dataclass(frozen=True)
class Heard:
    """A split of the list, and the scores (clips, ways) of it under each condition."""

    rows: Sequence[Row]
    scores: Mapping[str, np.ndarray]

    def classes(self, *conditions: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scores (clips, ways) of the bona fide clips and of the spoofs, under all of these."""
        together = np.concatenate([self.scores[condition] for condition in conditions], axis=1)
        return split_by_class(together, self.rows)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    of_run = args.run.suffix != ".safetensors"
    out = args.out or args.run
    _check_arguments(args, of_run, out)
    shipment = _of_run(args) if of_run else _of_weights(args)
    make_folder(out.parent)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    heard = _hear(shipment.model, args.audio, args.protocol or args.audio / "manifest.tsv", out.parent)
    decisions = _fit_decisions(heard["dev"])
    measured = _measured_section(heard, decisions)
    save_checkpoint(shipment.model, out, **shipment.metadata, **_as_metadata(decisions))
    write_whole(out.with_suffix(".md"), shipment.card(measured))
    print(measured)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="card.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder that train/fit.py wrote, or weights that have a card")
    parser.add_argument("--audio", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--protocol", type=Path, help="the list (default: manifest.tsv in --audio)")
    parser.add_argument("--weights", choices=("best", "final"), help="which of the run's (default: best)")
    parser.add_argument(
        "--out",
        type=Path,
        help="the weights, .safetensors; the card goes beside (default: RUN, if weights)",
    )
    parser.add_argument("--licence", help="of the weights")
    parser.add_argument("--notes", type=Path, help="Markdown: purpose and limits of the model")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace the files of --out")
    return parser


def _check_arguments(args: argparse.Namespace, of_run: bool, out: Path) -> None:
    """Refuses, before any work, what cannot end well.

    Raises:
        UserError: Flags that are missing or do not fit, or files that exist.
    """
    if not args.run.exists():
        raise UserError(f"{args.run}: no such run or weights")
    if of_run and (lacking := [f"--{name}" for name in ("out", "licence", "notes") if not vars(args)[name]]):
        raise UserError(f"a run needs {', '.join(lacking)}")
    if not of_run and (args.weights or args.licence):
        raise UserError("--weights and --licence are of a run; weights with a card have theirs")
    if out.suffix != ".safetensors":
        raise UserError(f"--out must end in .safetensors, not be {out}")
    for path in (out, out.with_suffix(".md")):
        refuse_existing(path, args.force)


def _of_run(args: argparse.Namespace) -> Shipment:
    facts = _read_facts(args.run / "run.json")
    notes = _read_text(args.notes).strip()
    which = args.weights or "best"
    source = args.run / f"{which}.safetensors"
    step = read_checkpoint(source).metadata["step"]
    model = load_listener(source)
    metadata = {
        "licence": args.licence,
        "data": "; ".join(sorted({row["dataset"] for row in facts["data"]})),
        "step": step,
        "seed": str(facts["recipe"]["schedule"]["seed"]),
    }
    rest = "\n".join([_training_section(facts, int(step), which), _data_section(facts["data"])])
    return Shipment(model, metadata, _head(model, args.licence), notes, rest)


def _of_weights(args: argparse.Namespace) -> Shipment:
    model, written = load_listener(args.run), read_checkpoint(args.run).metadata
    metadata = {key: text for key, text in written.items() if key not in ("model", "config", "decisions")}
    before, measured, after = _read_text(args.run.with_suffix(".md")).partition(MEASURED)
    _, training, rest = after.partition(TRAINING)
    parts = HEAD.fullmatch(before)
    if not (measured and training and parts):
        raise UserError(f"{args.run.with_suffix('.md')} is no card of train/card.py")
    notes = _read_text(args.notes) if args.notes else parts["notes"]
    return Shipment(model, metadata, parts["head"], notes.strip(), training.lstrip("\n") + rest)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {one_line(error)}") from None


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(_read_text(path))
    except ValueError:
        raise UserError(f"{path} is damaged: is {path.parent} a run of train/fit.py?") from None
    return facts


def _hear(model: Detector, audio: Path, protocol: Path, store: Path) -> dict[str, Heard]:
    """Returns the scores of dev (clean, corrupted, trimmed) and test (all conditions).

    The decoded recordings lie in the folder ``store`` meanwhile.
    """
    listed = read_rows(protocol, audio)
    heard = {}
    for split in CONDITIONS_OF:
        check_split(listed, split)
    for split, conditions in CONDITIONS_OF.items():
        rows = [row for row in listed if row.split == split and row.label in CLASSES]
        clips = decode(rows, partial(tqdm, desc=f"decoding {split}", unit="clip", disable=None), store)
        watch = tqdm(conditions, desc=f"scoring {split}", unit="condition", disable=None)
        heard[split] = Heard(rows, {name: score_under([model], clips, name)[0] for name in watch})
    return heard


def _fit_decisions(dev: Heard) -> Decisions | None:
    """Returns calibration and thresholds, fitted to the scores of dev.

    None where no threshold would mean anything, such as where the scores rank dev worse than chance.
    """
    bonafide, spoofs = dev.classes(*FITTED)
    corpora = ", ".join(sorted({row.dataset for row in dev.rows}))
    trials = f"{len(bonafide)} bona fide and {len(spoofs)} spoofed trials of {corpora}"
    try:
        return fit_decisions(bonafide, spoofs, f"{trials}, {', '.join(FITTED)}, float32")
    except UserError as error:
        print(f"no thresholds: {error}", file=sys.stderr)
        return None


def _as_metadata(decisions: Decisions | None) -> dict[str, str]:
    """Returns calibration and thresholds as JSON for the checkpoint, if there are any."""
    if decisions is None:
        return {}
    facts = {
        "calibration": asdict(decisions.calibration),
        "thresholds": [asdict(threshold) for threshold in decisions.thresholds],
    }
    return {"decisions": json.dumps(facts, sort_keys=True)}


def _head(model: Detector, licence: str) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return "\n".join(
        [
            f"# {model.name}",
            "",
            f"{parameters:,} parameters. Input: {model.clip_samples:,} samples of mono speech at 16 kHz.",
            "Output: a score, higher = more likely bona fide.",
            "",
            f"Licence of the weights: {licence}.",
            f"sha256 of the weights (`antispoof.checkpoint.weights_hash`): `{weights_hash(model)}`.",
        ]
    )


def _measured_section(heard: Mapping[str, Heard], decisions: Decisions | None) -> str:
    lines = [
        "EER with its 95 % bootstrap interval; trials are drawn within each class and taken as independent.",
        "Corrupted in six ways is every clip in white noise 15 to 25 dB below the speech, without what lies",
        "above 3.6 kHz, through MP3 and Opus, 12 dB louder and clipped, and quieter; all meet one threshold.",
        "",
        "| split | condition | bona fide | spoofs | EER [95 %] |",
        "|---|---|---:|---:|---:|",
    ]
    by_dataset = [
        "By the data set of the spoofs, as recorded, against all bona fide speech of the split.",
        "Above 50 %, the spoofs pass more readily than the bona fide speech.",
        "",
        "| split | spoofs from | trials | EER |",
        "|---|---|---:|---:|",
    ]
    for split, one in heard.items():
        for condition, scores in one.scores.items():
            figure, attacks = figure_of(scores, one.rows, split, condition)
            lines.append(
                f"| {split} | {condition} | {figure.bonafide} | {figure.spoofs} | {_percent(figure)} |"
            )
            if condition == CLEAN:
                by_dataset += [f"| {split} | {a.attack} | {a.trials} | {a.value:.1%} |" for a in attacks]
    return "\n".join([*lines, "", *_decisions_table(heard, decisions), *by_dataset, ""])


def _percent(figure: Figure) -> str:
    eer = figure.eer
    return f"{eer.estimate:.1%} [{eer.low:.1%}, {eer.high:.1%}]"


def _decisions_table(heard: Mapping[str, Heard], decisions: Decisions | None) -> list[str]:
    """Returns the lines that say what deciding at each threshold gets wrong."""
    if decisions is None:
        return ["The file has no thresholds: its scores of dev allow none.", ""]
    points = decisions.thresholds
    lines = [
        "Bona fide clips refused / spoofs that pass, at the thresholds in the file, which were fitted on dev",
        "under all three conditions together.",
        "",
        "| split | condition | " + " | ".join(f"`{p.name}`, {p.score:.3f}" for p in points) + " |",
        "|---|---|" + "---:|" * len(points),
    ]
    for split, one in heard.items():
        for condition in FITTED:
            bonafide, spoofs = (scores.ravel() for scores in one.classes(condition))
            rates = [error_rates(bonafide, spoofs, point.score) for point in points]
            cells = [f"{rate.miss:.1%} / {rate.false_alarm:.1%}" for rate in rates]
            lines.append(f"| {split} | {condition} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _training_section(facts: dict[str, Any], step: int, weights: str) -> str:
    recipe = {**facts["recipe"], "model": dict(facts["recipe"]["model"])}
    schedule, crop = recipe["schedule"], recipe["data"]["crop_samples"]
    if start := recipe["model"]["initial_weights"]:
        # The run and its file: where they lay is nobody else's business.
        recipe["model"]["initial_weights"] = start = "/".join(Path(start).parts[-2:])
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return "\n".join(
        [
            "## Training",
            "",
            f"From {start or 'random weights'}; averaged weights (EMA {schedule['ema']}) after step "
            f"{step} of {schedule['steps']}, batches of {schedule['batch']} crops of {crop:,} samples, "
            f"seed {schedule['seed']}, {schedule['precision']}, {facts['threads']} thread(s), {versions}.",
            *_taught_by(facts.get("teachers", [])),
            *([CHOSEN] if weights == "best" else []),
            "The whole recipe:",
            "",
            "```json",
            json.dumps(recipe, indent=1),
            "```",
            "",
        ]
    )


def _taught_by(teachers: Sequence[dict[str, str]]) -> list[str]:
    """Returns a sentence on what the weights were distilled from, if anything."""
    names = [f"{teacher['file']} (heard {teacher['heard'].partition(':')[0]})" for teacher in teachers]
    return [f"Distilled from {', '.join(names)}."] if names else []


def _data_section(data: Sequence[dict[str, Any]]) -> str:
    totals: dict[str, int] = {}
    for row in data:
        totals[row["label"]] = totals.get(row["label"], 0) + row["recordings"]
    lines = [
        "## Training data and attribution",
        "",
        "Recordings: " + ", ".join(f"{count:,} {label}" for label, count in sorted(totals.items())) + ".",
        "",
        "| label | data set | licence as its source states it | recordings |",
        "|---|---|---|---:|",
    ]
    lines += [f"| {r['label']} | {r['dataset']} | {r['licence']} | {r['recordings']} |" for r in data]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    run(main)
