"""Phase 6 from end to end: cleans the list, trains, evaluates clean and compressed, draws the phases.

    python train/phase6.py --phase5 PHASE5.safetensors --config train/configs/bimamba-lora-phase6.yaml \
        --audio DIR --out OUT --phase "Phase 4=PHASE4.safetensors"

    1. drops from the train split the 2 % that the Phase 5 model finds hardest,
       or another share by --drop                                                 OUT/cleaned.tsv
    2. trains by the recipe, starting from the Phase 5 model                      OUT/run
    3. scores --split, as recorded and through codecs, with every phase           OUT/phases.tsv
    4. draws clean against compressed EER of the phases                           OUT/phases.png

A run that was stopped goes on with --resume.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from antispoof.channel.conditions import CLEAN
from antispoof.checkpoint import load_model
from antispoof.errors import UserError, run
from antispoof.memory import keep_freed_memory
from antispoof.outputs import make_folder, write_whole
from train import fit
from train.clean import DROPPED, check_drop, clean, judged_of
from train.curves import draw_conditions
from train.dataset import CLASSES, check_split, decode, read_rows
from train.evaluation import Figure, figure_of, load_listener, score_under
from train.loop import PRECISIONS
from train.ranks import Ranks
from train.session import list_recordings, prepare, recipe_of

COMPRESSED = ("MP3, 64 kbit/s", "AAC, 32 kbit/s", "Opus, 16 kbit/s")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    others = dict(_named_file(text) for text in args.phase)
    protocol = args.protocol or args.audio / "manifest.tsv"
    cleaned, run_folder = args.out / "cleaned.tsv", args.out / "run"
    goes_on = cleaned.exists() and not args.force
    # What would end steps 2 and 3 ends the command now, and not after days of training.
    _check_training(fit.arguments(_fit_flags(args, cleaned if goes_on else protocol, run_folder)))
    if args.drop is not None:
        check_drop(args.drop)
    check_split(read_rows(protocol, args.audio), args.split)
    for path in others.values():
        load_model(path)
    make_folder(args.out)
    if goes_on and not args.resume:
        raise UserError(f"{args.out} holds a run already: --resume goes on with it, --force drops it")
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    if goes_on:
        _check_cleaned(cleaned, protocol, args.audio, args.drop)
    else:
        drop = DROPPED if args.drop is None else args.drop
        dropped = clean(load_model(args.phase5), protocol, args.audio, cleaned, drop)
        print(f"left {len(dropped)} recordings out: {cleaned}")
    fit.main(_fit_flags(args, cleaned, run_folder))
    phases = {**others, "Phase 5": args.phase5, "Phase 6": run_folder / "best.safetensors"}
    figures = evaluate(phases, protocol, args.audio, args.split, args.out)
    write_whole(args.out / "phases.tsv", _table(figures))
    print(_table(figures), end="")
    draw_conditions(clean_and_compressed(figures), args.out / "phases.png")
    return 0


def _check_training(args: argparse.Namespace) -> None:
    """Raises `UserError` where the training is one that train/fit.py refuses."""
    recipe = recipe_of(args)
    prepare(args, recipe, Ranks(), list_recordings(args, recipe))


def _check_cleaned(cleaned: Path, protocol: Path, audio: Path, drop: float | None) -> None:
    """Refuses to go on with a list from which another share was dropped than is asked for.

    Raises:
        UserError: It was.
    """
    before, after = (len(judged_of(read_rows(path, audio))) for path in (protocol, cleaned))
    if drop is not None and before - after != round(drop * before):
        raise UserError(
            f"{cleaned} was made without {before - after} of {before} recordings, and --drop says "
            f"{round(drop * before)}: --force starts anew"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="phase6.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--phase5", type=Path, required=True, help="checkpoint that cleans, and to begin with"
    )
    parser.add_argument("--config", type=Path, required=True, help="the recipe of Phase 6, YAML")
    parser.add_argument("--audio", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--protocol", type=Path, help="the list (default: manifest.tsv in --audio)")
    parser.add_argument("--out", type=Path, required=True, help="folder of all results")
    parser.add_argument(
        "--phase", action="append", default=[], metavar="NAME=FILE", help="another checkpoint to draw"
    )
    parser.add_argument("--drop", type=float, help=f"share left out of the train split (default: {DROPPED})")
    parser.add_argument("--split", default="test", help="that is evaluated on (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--force", action="store_true", help="drop the run in --out and start anew")
    return parser


def _named_file(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not (name and path):
        raise UserError(f"--phase takes NAME=FILE, not {text!r}")
    return name, Path(path)


def _fit_flags(args: argparse.Namespace, cleaned: Path, out: Path) -> list[str]:
    """Returns the command line of the training."""
    flags = ["--config", args.config, "--audio", args.audio, "--protocol", cleaned, "--out", out]
    flags += ["--start", args.phase5, "--threads", args.threads, "--workers", args.workers]
    flags += ["--device", args.device]
    for flag, value in (("--steps", args.steps), ("--precision", args.precision)):
        flags += [flag, value] if value is not None else []
    flags += [flag for flag, given in (("--resume", args.resume), ("--force", args.force)) if given]
    return list(map(str, flags))


def evaluate(
    phases: Mapping[str, Path], protocol: Path, audio: Path, split: str, store: Path
) -> dict[str, list[Figure]]:
    """Returns the EER of each phase's model on a split, as recorded and through each codec.

    The decoded recordings lie in the folder ``store`` meanwhile.
    """
    rows = [row for row in read_rows(protocol, audio) if row.split == split and row.label in CLASSES]
    clips = decode(rows, partial(tqdm, desc=f"decoding {split}", unit="clip", disable=None), store)
    figures = {}
    for name, path in phases.items():
        model = load_listener(path)
        watch = tqdm((CLEAN, *COMPRESSED), desc=f"scoring {name}", unit="condition", disable=None)
        figures[name] = [
            figure_of(score_under([model], clips, condition)[0], rows, split, condition)[0]
            for condition in watch
        ]
    return figures


def clean_and_compressed(figures: Mapping[str, Sequence[Figure]]) -> dict[str, tuple[float, float]]:
    """Returns the EER of each phase as recorded, and its mean over the codecs."""
    eers = {name: {figure.condition: figure.eer.estimate for figure in one} for name, one in figures.items()}
    return {
        name: (one[CLEAN], float(np.mean([one[condition] for condition in COMPRESSED])))
        for name, one in eers.items()
    }


def _table(figures: Mapping[str, Sequence[Figure]]) -> str:
    """Returns the figures as tab-separated text."""
    lines = ["phase\tcondition\tbonafide\tspoofs\teer\tlow\thigh"]
    for name, one in figures.items():
        lines += [
            f"{name}\t{f.condition}\t{f.bonafide}\t{f.spoofs}\t"
            f"{f.eer.estimate:.4f}\t{f.eer.low:.4f}\t{f.eer.high:.4f}"
            for f in one
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(main)
