"""Measures a finished run and writes what is shipped: the weights and their model card.

    python train/card.py RUN --audio DIR --out antispoof/checkpoints/aasist-l.safetensors \
        --licence CC-BY-4.0 --notes train/configs/aasist-l.notes.md

The card (the same name, ending in .md) says what the weights were trained on, how, and how well they do on
the splits dev and test of the list, as recorded and degraded. Calibration and thresholds, fitted on dev, go
into the weights' file, and from there into what is exported of it. --notes is the part that no measurement
can write: what the model is for, and what it is bad at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from antispoof.checkpoint import load_model, read_checkpoint, save_checkpoint, weights_hash
from antispoof.data import NOISE
from antispoof.errors import UserError, one_line, run
from antispoof.memory import keep_freed_memory
from antispoof.metrics import AttackEer
from antispoof.models import Detector
from antispoof.thresholds import fit_decisions
from train.dataset import decode, read_rows
from train.evaluation import CLEAN, CONDITIONS, TRIMMED, Figure, measure
from train.scoring import score_clips, split_by_class
from train.states import write_text

CHOSEN = "The step was chosen by the EER on dev, which flatters that figure."


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    card = args.out.with_suffix(".md")
    for path in (args.out, card):
        if path.exists() and not args.force:
            raise UserError(f"{path} exists; --force replaces it")
    if args.out.suffix != ".safetensors":
        raise UserError(f"--out must end in .safetensors, not be {args.out}")
    facts = _read_facts(args.run / "run.json")
    notes = _read_text(args.notes)
    torch.set_num_threads(args.threads)
    source = args.run / f"{args.weights}.safetensors"
    step = read_checkpoint(source).metadata["step"]
    model = load_model(source)
    keep_freed_memory()
    protocol = args.protocol or args.audio / "manifest.tsv"
    figures, attacks = _measure_all(model, args.audio, protocol)
    decisions = _fit_decisions(model, args.audio, protocol)
    seed = facts["recipe"]["schedule"]["seed"]
    data = "; ".join(sorted({row["dataset"] for row in facts["data"]}))
    save_checkpoint(model, args.out, licence=args.licence, data=data, step=step, seed=str(seed), **decisions)
    text = write_card(model, facts, int(step), args.weights, args.licence, notes, figures, attacks)
    write_text(card, text)
    for figure in figures:
        print(f"{figure.split}\t{figure.condition}\t{_percent(figure)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder that train/fit.py wrote")
    parser.add_argument("--audio", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--protocol", type=Path, help="the list (default: manifest.tsv in --audio)")
    parser.add_argument("--weights", choices=("best", "final"), default="best", help="which of the run's")
    parser.add_argument(
        "--out", type=Path, required=True, help="the weights, .safetensors; the card goes beside"
    )
    parser.add_argument("--licence", required=True, help="of the weights")
    parser.add_argument("--notes", type=Path, required=True, help="Markdown: purpose and limits of the model")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace the files of --out")
    return parser


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


def _measure_all(
    model: Detector, audio: Path, protocol: Path
) -> tuple[list[Figure], dict[str, tuple[AttackEer, ...]]]:
    """Returns the figures of dev (clean, trimmed) and test (all), and the clean ones by data set."""
    rows = read_rows(protocol, audio)
    figures, attacks = [], {}
    for split, conditions in (("dev", [CLEAN, TRIMMED]), ("test", list(CONDITIONS))):
        part = [row for row in rows if row.split == split and row.label != NOISE]
        clips = decode(part, partial(tqdm, desc=f"decoding {split}", unit="clip", disable=None))
        for condition in tqdm(conditions, desc=f"scoring {split}", unit="condition", disable=None):
            figure, by_dataset = measure(model, split, part, clips, condition)
            figures.append(figure)
            if condition == CLEAN:
                attacks[split] = by_dataset
    return figures, attacks


def _fit_decisions(model: Detector, audio: Path, protocol: Path) -> dict[str, str]:
    """Returns calibration and thresholds, fitted to the scores of dev, as JSON for the checkpoint.

    Nothing where the scores rank dev worse than chance: no threshold would mean anything.
    """
    rows = [row for row in read_rows(protocol, audio) if row.split == "dev" and row.label != NOISE]
    bonafide, spoof = split_by_class(score_clips(model, decode(rows, iter)), rows)
    corpora = ", ".join(sorted({row.dataset for row in rows}))
    trials = f"{len(bonafide)} bona fide and {len(spoof)} spoofed trials of {corpora}, float32"
    try:
        fitted = fit_decisions(bonafide, spoof, trials)
    except UserError as error:
        print(f"no thresholds: {error}", file=sys.stderr)
        return {}
    facts = {
        "calibration": asdict(fitted.calibration),
        "thresholds": [asdict(threshold) for threshold in fitted.thresholds],
    }
    return {"decisions": json.dumps(facts, sort_keys=True)}


def _percent(figure: Figure) -> str:
    eer = figure.eer
    return f"{eer.estimate:.1%} [{eer.low:.1%}, {eer.high:.1%}]"


def write_card(
    model: Detector,
    facts: dict[str, Any],
    step: int,
    weights: str,
    licence: str,
    notes: str,
    figures: Sequence[Figure],
    attacks: dict[str, tuple[AttackEer, ...]],
) -> str:
    """Returns the model card as Markdown; ``weights`` says which of the run's they are, best or final."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    head = [
        f"# {model.name}",
        "",
        f"{parameters:,} parameters. Input: {model.clip_samples:,} samples of mono speech at 16 kHz.",
        "Output: a score, higher = more likely bona fide.",
        "",
        f"Licence of the weights: {licence}.",
        f"sha256 of the weights (`antispoof.checkpoint.weights_hash`): `{weights_hash(model)}`.",
        "",
        notes.strip(),
        "",
    ]
    parts = (
        _figures_section(figures, attacks),
        _training_section(facts, step, weights),
        _data_section(facts["data"]),
    )
    return "\n".join([*head, *parts])


def _figures_section(figures: Sequence[Figure], attacks: dict[str, tuple[AttackEer, ...]]) -> str:
    lines = [
        "## Measured",
        "",
        "EER with its 95 % bootstrap interval; trials are drawn within each class and taken as independent.",
        "Corrupted in six ways is every clip in white noise 15 to 25 dB below the speech, without what lies",
        "above 3.6 kHz, through MP3 and Opus, 12 dB louder and clipped, and quieter; all meet one threshold.",
        "",
        "| split | condition | bona fide | spoofs | EER [95 %] |",
        "|---|---|---:|---:|---:|",
    ]
    lines += [f"| {f.split} | {f.condition} | {f.bonafide} | {f.spoofs} | {_percent(f)} |" for f in figures]
    lines += [
        "",
        "By the data set of the spoofs, as recorded, against all bona fide speech of the split.",
        "Above 50 %, the spoofs pass more readily than the bona fide speech.",
        "",
        "| split | spoofs from | trials | EER |",
        "|---|---|---:|---:|",
    ]
    lines += [
        f"| {split} | {a.attack} | {a.trials} | {a.value:.1%} |" for split in attacks for a in attacks[split]
    ]
    return "\n".join([*lines, ""])


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
