"""Trains a detector on labelled recordings.

    python train/fit.py --config train/configs/aasist-l.yaml --audio DIR --out RUN
    python train/fit.py --config train/configs/aasist-l.yaml --audio DIR --out RUN --resume
    torchrun --nproc-per-node 2 train/fit.py --config train/configs/aasist.yaml --audio DIR --out RUN

Trains on the rows of the list marked ``train`` and validates on those marked ``dev``; the list is
DIR/manifest.tsv unless --protocol names another. RUN then holds run.json (what was trained on what),
metrics.tsv, curves.png, the last five states, best.safetensors (lowest dev EER) and final.safetensors. A run
that was stopped, even by force, goes on with --resume to the same weights, bit for bit, and so the same
command may be given again and again until it is done. Processes that torchrun starts share each batch of the
recipe.
"""

from __future__ import annotations

import argparse
import sys

from antispoof.errors import run
from train.recipe import DistillRecipe, QuantizeRecipe, Recipe
from train.session import add_flags, carry_out, gather, list_recordings, prepare, ranks_of, recipe_of


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = arguments(argv)
    recipe = recipe_of(args)
    with ranks_of(args) as ranks:
        if ranks.first:
            _say_what_is_unheard(recipe)
        listed = list_recordings(args, recipe)
        prepared = prepare(args, recipe, ranks, listed)
        carry_out(prepared, gather(args, recipe, ranks, listed))
    return 0


def _say_what_is_unheard(recipe: Recipe) -> None:
    """Says on stderr which sections are for other commands: runs that are compared share a recipe."""
    for section, usual, command in (
        ("distill", DistillRecipe(), "train/distill.py"),
        ("quantize", QuantizeRecipe(), "train/qat.py"),
    ):
        if getattr(recipe, section) != usual:
            print(
                f"the recipe's section {section} is for {command}, and counts for nothing here",
                file=sys.stderr,
            )


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns what the command line says."""
    parser = argparse.ArgumentParser(
        prog="fit.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main)
