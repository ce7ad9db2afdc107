"""Trains a detector to say what other detectors say.

    python train/distill.py --config FILE --teacher A.safetensors --teacher B.safetensors \
        --audio DIR --more COPIES --out RUN
    python train/distill.py --config FILE --clip-teacher AASIST.pth --cached OPINIONS \
        --unlabelled DIR --audio DIR --out RUN

The student is the recipe's model, and the section ``distill`` of the recipe says how it learns: temperature,
weight of teachers against labels, and what embeddings count. A --teacher hears the student's own crops, cut
and augmented as they are; a --clip-teacher, for one that costs too much, hears every recording once as a
whole, and what it said is kept in the folder --cached for this run and others. Audio of --unlabelled (the
train split of a list, or simply all files of a folder) is learnt from teachers alone; where the recipe says
so, clip teachers hear nothing else, such as the excerpts of train/transfer_set.py. All else is as in
train/fit.py.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from antispoof.errors import UserError, run
from antispoof.outputs import make_folder
from train.dataset import UNLABELLED, unlabelled_rows
from train.distillation import Distillation
from train.network import build_model
from train.ranks import Ranks
from train.recipe import Recipe
from train.session import (
    Listed,
    Material,
    add_flags,
    carry_out,
    gather,
    list_recordings,
    prepare,
    ranks_of,
    recipe_of,
)
from train.teachers import ClipTeacher, CropTeacher, Teacher, features_of


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    recipe = recipe_of(args)
    if not (args.teacher or args.clip_teacher):
        raise UserError("give at least one --teacher or --clip-teacher")
    if not recipe.distill.teaches:
        raise UserError(
            "distill.weight is 0, and so is that of embeddings and layers: teachers would teach nothing; "
            "train/fit.py learns from labels alone"
        )
    if args.clip_teacher and recipe.distill.clip_teachers_hear == "unlabelled" and not args.unlabelled:
        raise UserError("distill.clip_teachers_hear is unlabelled: give --unlabelled for --clip-teacher")
    if recipe.distill.compared and args.clip_teacher:
        raise UserError("distill.layer compares crops, and a --clip-teacher hears none: give --teacher")
    with ranks_of(args) as ranks:
        if args.clip_teacher:
            make_folder(_opinions(args))
        unlabelled = [row for folder in args.unlabelled for row in unlabelled_rows(folder)]
        listed = list_recordings(args, recipe, unlabelled)
        teachers = _teachers(args, recipe)
        features = features_of(build_model(recipe).eval())
        objective = Distillation(recipe.distill, recipe.loss, teachers, features)
        method = _method(args, teachers)
        prepared = prepare(args, recipe, ranks, listed, objective=objective, method=method)
        material = gather(args, recipe, ranks, listed)
        if not ranks.first:
            ranks.wait()  # until the first one has filled the cache
        _ask(args, recipe, listed, material, teachers, ranks)
        if ranks.first:
            ranks.wait()
        carry_out(prepared, material)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distill.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser)
    many: dict[str, Any] = {"type": Path, "action": "append", "default": []}
    parser.add_argument("--teacher", **many, help="a checkpoint that hears the student's crops")
    parser.add_argument("--clip-teacher", **many, help="a checkpoint that hears whole recordings, once")
    parser.add_argument(
        "--cached", type=Path, help="folder of what clip teachers said (default: teachers in --out)"
    )
    parser.add_argument("--unlabelled", **many, help="folder of audio that only teachers judge")
    return parser


def _teachers(args: argparse.Namespace, recipe: Recipe) -> list[Teacher]:
    device, samples = torch.device(args.device), recipe.distill.clip_samples or None
    crop, layer = recipe.data.crop_samples, recipe.distill.compared
    of_crops = [CropTeacher(path, crop, device, layer) for path in args.teacher]
    return [*of_crops, *(ClipTeacher(path, device, samples) for path in args.clip_teacher)]


def _opinions(args: argparse.Namespace) -> Path:
    """Returns the folder of what clip teachers said."""
    folder: Path = args.cached or args.out / "teachers"
    return folder


def _ask(
    args: argparse.Namespace,
    recipe: Recipe,
    listed: Listed,
    material: Material,
    teachers: list[Teacher],
    ranks: Ranks,
) -> None:
    """Has clip teachers say what they think of the recordings."""
    asked = None
    if recipe.distill.clip_teachers_hear == "unlabelled":
        asked = [index for index, row in enumerate(listed.speech) if row.label == UNLABELLED]
    of_clips = [teacher for teacher in teachers if isinstance(teacher, ClipTeacher)]
    for path, teacher in zip(args.clip_teacher, of_clips, strict=True):
        watch = partial(tqdm, desc=f"asking {path.name}", disable=None if ranks.first else True)
        teacher.ask(material.clips, _opinions(args), watch, asked)


def _method(args: argparse.Namespace, teachers: list[Teacher]) -> dict[str, Any]:
    names = [path.name for path in (*args.teacher, *args.clip_teacher)]
    return {
        "teachers": [
            {"file": name, "heard": teacher.key} for name, teacher in zip(names, teachers, strict=True)
        ]
    }


if __name__ == "__main__":
    run(main)
