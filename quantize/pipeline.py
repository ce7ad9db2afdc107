"""What all quantizing commands do around their conversion, whatever the format.

1. open the float file, take the calibration clips
2. convert
3. take the mean error of the score off, for integers
4. compare the result with the float file
5. fit thresholds and calibration to its own scores where there is a protocol; else carry over those of the
   float file, as far as the scores are still the same
6. move file and manifest into place, or leave nothing behind
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.channel.conditions import CLEAN, FITTED
from antispoof.errors import EXIT_DONE, CheckFailed, UserError
from antispoof.formats import Format, format_named, format_of
from antispoof.manifest import Manifest, Parity, describe_file, manifest_path, put_in_place
from antispoof.outputs import partial_folder, refuse_to_replace
from quantize.calibration import CLIPS, OBSERVERS, Observer, calibration_clips
from quantize.recipes import Recipe, parse_recipe
from runtimes import load
from runtimes.fit_thresholds import SPLIT, fit, fitting_split

EXPORTS = Path("out")  # where the exporters write by default
FLOAT16_TOLERANCE = 0.015  # in score: an eighth of the smallest change that 8 bits make
# Thresholds are carried over where 95 % of the scores moved by less than this share of their standard
# deviation: so far, one decision in fifty was another at most (benchmarks/results/quantized-*.json).
CARRIED_WITHIN = 0.1
LEAST_SAVED = 0.05  # of a file all of whose scores stay: what is said of it in its own metadata is less


@dataclass(frozen=True)
class Options:
    """What a conversion is asked for beside its recipe.

    Attributes:
        observer: How ranges are chosen.
        updates: Of what is learned; the usual number if None.
        trials: What a search measures the EER on, if anything: a list, the folder of its audio, which split.
        stem: What the names of a search's measurements begin with.
        force: Whether a search forgets what was measured before.
    """

    observer: Observer = "mse"
    updates: int | None = None
    trials: tuple[Path, Path, str | None] | None = None
    stem: Path = EXPORTS / "search"
    force: bool = False


@dataclass(frozen=True)
class Product:
    """How files of one format are quantized.

    Attributes:
        format: Its name in `antispoof.formats`.
        takes: Whether a recipe can be had in this format.
        recipes: Those that can, in words.
        convert: Returns a model, given the float file, the recipe, clips ``(clips, samples)`` and options.
        write: Writes a model with a manifest's facts inside to a path.
        add_offset: Makes a model add a constant to its score.
        describe: The manifest's word for the recipe's numbers.
    """

    format: str
    takes: Callable[[Recipe], bool]
    recipes: str
    convert: Callable[[Path, Recipe, np.ndarray, Options], Any]
    write: Callable[[Any, Manifest, Path], None]
    add_offset: Callable[[Any, float], None]
    describe: Callable[[Recipe], str] = lambda recipe: recipe.precision

    @property
    def row(self) -> Format:
        """The format's row."""
        return format_named(self.format)


def add_arguments(p: argparse.ArgumentParser, product: Product, default: str) -> None:
    """Adds the flags that every quantizing command has; ``default`` is its recipe."""
    suffix = product.row.suffixes[0]
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "path",
        type=Path,
        nargs="?",
        metavar="MODEL",
        help=f"an exported float32 {suffix}",
    )
    source.add_argument("--model", metavar="NAME", help=f"short for {EXPORTS}/NAME{suffix}")
    p.add_argument("--recipe", default=default, metavar="NAME", help=f"default {default}")
    p.add_argument("--calibration", default=str(CLIPS), metavar="LIST", help="list of clips, or `all`")
    p.add_argument("--audio", type=Path, metavar="DIR", help="folder that the list's paths begin at")
    p.add_argument("--observer", choices=OBSERVERS, default="mse", help="how ranges are chosen (default mse)")
    p.add_argument("--protocol", type=Path, help="fit thresholds and calibration on this list's split")
    p.add_argument("--split", help=f"of the protocol (default {SPLIT}, or all of a list that is not divided)")
    p.add_argument("--as-recorded", action="store_true", help="fit on it as it is, in no mishap")
    p.add_argument("--protocol-audio", type=Path, metavar="DIR", help="folder of its audio (default --audio)")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: the model's)")
    p.add_argument("--force", action="store_true", help="replace a file that exists")


def carry_over(
    manifest: Manifest, source: Manifest, expected: np.ndarray, found: np.ndarray, clips: str
) -> Manifest:
    """Returns the manifest of a quantized file with its source's thresholds and calibration, where they hold.

    Args:
        manifest: Of the quantized file.
        source: Of the float file.
        expected: Scores (clips,) of the float file.
        found: Those of the quantized file, for the same clips.
        clips: What these are.
    """
    if not source.thresholds and source.calibration is None:
        return manifest
    moved = float(np.quantile(np.abs(expected - found), 0.95))
    if not moved <= CARRIED_WITHIN * float(np.std(expected)):
        print(
            f"no thresholds: the scores of 5 % of {clips} moved by more than {moved:.2g}, "
            "too far for those of the float file; runtimes/fit_thresholds.py fits its own",
            file=sys.stderr,
        )
        return manifest
    origin = f", carried over from the float file: 95 % of the scores of {clips} moved by at most {moved:.2g}"
    calibration = source.calibration
    return replace(
        manifest,
        calibration=calibration and replace(calibration, data=calibration.data + origin),
        thresholds=tuple(replace(point, data=point.data + origin) for point in source.thresholds),
    )


def tolerance_of(recipe: Recipe, reference: np.ndarray) -> float:
    """Returns the largest difference in score that a file may have and still be written."""
    return FLOAT16_TOLERANCE if recipe.float16 else float(np.std(reference))


def write(model: Any, product: Product, manifest: Manifest, path: Path) -> Manifest:
    """Writes a model and its manifest; returns the manifest, which now knows the file."""
    if path.is_dir():
        shutil.rmtree(path)
    product.write(model, manifest, path)
    manifest = replace(manifest, file=describe_file(path))
    manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def quantize(
    product: Product, args: argparse.Namespace, target: Path, recipe: Recipe
) -> tuple[Manifest, np.ndarray]:
    """Writes the quantized file and its manifest; returns the manifest, and the error of each score.

    Raises:
        UserError: The source is no float32 file, or the recipe changes nothing of it.
        CheckFailed: The scores have nothing to do with the source's any more. Nothing is left behind.
    """
    source = load(args.path)
    if source.manifest is None or source.manifest.precision != "float32":
        raise UserError(f"{args.path}: only float32 files can be quantized; export the model")
    clips, clips_name = calibration_clips(args.calibration, args.audio, source.input.samples)
    options = options_of(args)
    manifest = about(source.manifest, product, recipe)
    expected = source.score(clips).astype(np.float64)
    with partial_folder(args.out) as folder:  # before the conversion, which may take minutes
        path = folder / target.name
        model = product.convert(args.path, recipe, clips, options)
        manifest = write(model, product, manifest, path)
        found = load(path).score(clips)
        saved = 1 - describe_file(path).bytes / describe_file(args.path).bytes
        if np.array_equal(found, expected) and saved < LEAST_SAVED:
            raise UserError(
                f"{recipe.name} finds no weights in {args.path.name} that are worth storing in fewer bits; "
                "nothing was written"
            )
        if not recipe.float16:
            product.add_offset(model, float(np.mean(expected - found)))
            manifest = write(model, product, manifest, path)
            found = load(path).score(clips)
        difference = np.abs(expected - found)
        most, allowed = float(difference.max()), tolerance_of(recipe, expected)
        if not most <= allowed:
            raise CheckFailed(
                f"{recipe.name} changes a score of {clips_name} by {most:.3g}, more than {allowed:.3g}; "
                "nothing was written"
            )
        manifest = replace(manifest, parity=Parity(args.path.name, len(clips), clips_name, most, allowed))
        if options.trials is None:
            manifest = carry_over(manifest, source.manifest, expected, found, clips_name)
        else:
            protocol, audio, split = options.trials
            conditions = (CLEAN,) if args.as_recorded else FITTED
            own = fit(load(path), protocol, audio, split=split, conditions=conditions).decisions
            manifest = replace(manifest, calibration=own.calibration, thresholds=own.thresholds)
        manifest = write(model, product, manifest, path)
        put_in_place(path, target)
    return manifest, difference


def about(source: Manifest, product: Product, recipe: Recipe) -> Manifest:
    """Returns the manifest of a quantized file, with nothing that was only true of its source."""
    return replace(
        source,
        precision=product.describe(recipe),
        recipe=recipe.name,
        calibration=None,
        thresholds=(),
        parity=None,
        file=None,
        model_version=0,
        golden_sha256=None,
    )


def options_of(args: argparse.Namespace) -> Options:
    """Returns what the flags ask of a conversion; those of a single command may be missing.

    Raises:
        UserError: The protocol cannot be read.
    """
    trials = None
    if args.protocol is not None:
        split = args.split or fitting_split(args.protocol)
        trials = (args.protocol, args.protocol_audio or args.audio, split)
    updates = getattr(args, "updates", None)
    return Options(args.observer, updates, trials, args.out / args.path.stem, args.force)


def run_command(product: Product, args: argparse.Namespace) -> int:
    """Quantizes as the arguments say and prints what came of it; returns the exit code.

    Raises:
        UserError: There is no such file or recipe, or the target exists.
    """
    row = product.row
    recipe = parse_recipe(args.recipe)
    if not product.takes(recipe):
        raise UserError(f"no {row.name} file can be {recipe.name}; there are {product.recipes}")
    if args.path is None:
        args.path = EXPORTS / f"{args.model}{row.suffixes[0]}"
        if not args.path.exists():
            raise UserError(
                f"{args.path} is missing; python export/to_{row.name}.py --model {args.model} writes it"
            )
    if args.path.exists() and format_of(args.path) != row:
        raise UserError(f"{args.path}: not a {row.suffixes[0]} file")
    for flag in ("as_recorded", "split", "protocol_audio"):
        if getattr(args, flag) and args.protocol is None:
            raise UserError(f"--{flag.replace('_', '-')} belongs to a protocol; name it with --protocol")
    if args.calibration != str(CLIPS) and args.audio is None:
        raise UserError("--calibration needs --audio, the folder that its paths begin at")
    if args.protocol is not None and not (args.protocol_audio or args.audio):
        raise UserError("--protocol needs --audio or --protocol-audio, the folder that its paths begin at")
    args.out = args.out or args.path.parent
    target = row.path_in(args.out, f"{args.path.stem}.{recipe.name}")
    refuse_to_replace((target, manifest_path(target)), args.force)
    manifest, difference = quantize(product, args, target, recipe)
    print(table(args.path, target, manifest, difference))
    return EXIT_DONE


def table(source: Path, target: Path, manifest: Manifest, difference: np.ndarray) -> str:
    """Returns what was written and how it compares, one fact a line."""
    assert manifest.file is not None
    assert manifest.parity is not None
    numbers = {
        "median": np.median(difference),
        "p95": np.quantile(difference, 0.95),
        "largest": difference.max(),
    }
    rows = {
        "file": str(target),
        "recipe": f"{manifest.recipe}: {manifest.precision}",
        "size": f"{manifest.file.bytes / 1024:.1f} KiB, "
        f"{manifest.file.bytes / describe_file(source).bytes:.2f} of the source",
        "difference": ", ".join(f"{value:.3g} {name}" for name, value in numbers.items())
        + f", on {manifest.parity.audio}",
        **{f"threshold {row.name}": f"{row.score:.4g}" for row in manifest.thresholds},
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
