"""Cuts a transfer set: short excerpts of recordings, many of them changed, for teachers to judge.

    python train/transfer_set.py --config train/configs/fscnn-taught.yaml --audio DIR --more COPIES \
        --out EXCERPTS
    python train/distill.py --config train/configs/fscnn-taught.yaml --audio DIR --more COPIES --out RUN \
        --unlabelled EXCERPTS --clip-teacher AASIST-L.pth --teacher OTHER.safetensors

A few recordings of an attack teach a small network those recordings. A teacher that knows the attack says
more: what it makes of every part of them, of each part faster, slower and through other microphones, of two
of them at once, and of one that turns into another. Its answers on such a "transfer set" (Bucila et al.,
"Model compression", KDD 2006) draw its function where labels only give points of it.

Excerpts are as long as a training crop, because detectors judge a short clip as it is better than one that is
repeated to their full length, and all at one level, since some take a louder clip for another voice. Their
labels are not kept: changed and joined ones have none. The section ``transfer`` of the recipe says how many
there are of each data set.
"""

from __future__ import annotations

import argparse
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError, run
from antispoof.outputs import make_folder
from train.augment import Augmentation, random_crop, rms
from train.batches import weight_of
from train.dataset import INT16_SCALE, UNLABELLED, Row, decode, read_lists, training_rows
from train.made_clips import write_clip, write_list
from train.recipe import AugmentRecipe, TransferRecipe, read_recipe

COLUMNS = ("path", "label", "split", "dataset", "source", "licence")
CHANGES = 0.7  # chance of each of the two changes of a changed excerpt
SPEEDS = (0.88, 1.12)
MICROPHONES = Augmentation(AugmentRecipe(equaliser_share=CHANGES, equaliser_db=5.0), [])
SHARES_OF_SUM = (0.3, 0.9)
TURNS = (0.2, 0.8)  # of an excerpt, where one recording takes over from another
LEAST_RMS = 1e-4  # below which a recording is silence, and stays it


@dataclass(frozen=True)
class Excerpts:
    """What excerpts are cut from, and how long they are."""

    rows: Sequence[Row]
    clips: Sequence[np.ndarray]
    recipe: TransferRecipe
    samples: int

    def draw(self, index: int, relatives: Sequence[int], generator: np.random.Generator) -> np.ndarray:
        """Returns an excerpt (samples,) float32 of a recording.

        Args:
            index: Of the recording.
            relatives: Indices of the recordings of its data set, that it may be joined with.
            generator: Draws the place and the changes.
        """
        if generator.random() >= self.recipe.changed_share:
            return self._cut(index, self.samples, generator)
        excerpt = self._changed(index, generator)
        if generator.random() >= self.recipe.joined_share:
            return excerpt
        other = self._changed(int(generator.choice(relatives)), generator)
        if generator.random() < 0.5:
            share = np.float32(generator.uniform(*SHARES_OF_SUM))
            return share * excerpt + (1 - share) * other
        turn = int(self.samples * generator.uniform(*TURNS))
        return np.concatenate([excerpt[:turn], other[turn:]])

    def _cut(self, index: int, samples: int, generator: np.random.Generator) -> np.ndarray:
        clip = self.clips[index]
        gain = 10 ** (self.recipe.level_db / 20) / max(rms(clip) / INT16_SCALE, LEAST_RMS)
        crop = random_crop(clip, samples, generator).astype(np.float32) / INT16_SCALE
        return crop * np.float32(gain)

    def _changed(self, index: int, generator: np.random.Generator) -> np.ndarray:
        """Returns an excerpt, faster or slower, and through another frequency response."""
        speed = generator.uniform(*SPEEDS) if generator.random() < CHANGES else 1.0
        excerpt = self._cut(index, int(np.ceil(self.samples * speed)) + 1, generator)
        if speed != 1:
            excerpt = soxr.resample(excerpt, SAMPLE_RATE * speed, SAMPLE_RATE)
        excerpt = np.pad(excerpt, (0, max(0, self.samples - len(excerpt))))[: self.samples]
        return MICROPHONES(excerpt, generator)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    recipe = read_recipe(args.config)
    if args.out.exists():
        raise UserError(f"{args.out} exists")
    rows, copies = read_lists(args.audio, args.protocol, args.more)
    speech, _, _ = training_rows(rows, recipe.data, copies)
    partial = args.out.with_name(f".{args.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    make_folder(partial)
    try:
        clips = decode(speech, lambda part: tqdm(part, "decoding", disable=None), partial)
        excerpts = Excerpts(speech, clips, recipe.transfer, recipe.data.crop_samples)
        lines = write_excerpts(excerpts, args.seed, partial)
        if not lines:
            raise UserError(f"{args.config}: transfer.excerpts asks for none of these recordings")
        write_list(partial, COLUMNS, lines)
        partial.rename(args.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{len(lines)} excerpts of {len(speech)} recordings: {args.out / 'manifest.tsv'}")
    return 0


def write_excerpts(excerpts: Excerpts, seed: int, folder: Path) -> list[dict[str, str]]:
    """Writes all excerpts; returns their lines of the list.

    Each depends on the seed and its recording's path alone, and where it is joined, on its data set.
    """
    relatives: dict[str, list[int]] = {}
    for index, row in enumerate(excerpts.rows):
        relatives.setdefault(row.dataset, []).append(index)
    lines = []
    for index, row in enumerate(tqdm(excerpts.rows, "cutting", unit="recording", disable=None)):
        generator = np.random.default_rng([seed, zlib.crc32(f"{row.folder.name}/{row.path}".encode())])
        wanted = weight_of(row.dataset, excerpts.recipe.excerpts)
        count = int(wanted) + (generator.random() < wanted % 1)
        for number in range(count):
            excerpt = excerpts.draw(index, relatives[row.dataset], generator)
            name = f"{index:06d}.{number}.flac"
            loudest = max(float(np.abs(excerpt).max()), 1.0)
            write_clip(folder / name, excerpt / loudest)
            known = {"dataset": f"excerpts of {row.dataset}", "source": row.path, "licence": row.licence}
            lines.append({"path": name, "label": UNLABELLED, "split": "train", **known})
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transfer_set.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="the recipe, YAML")
    parser.add_argument("--audio", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--protocol", type=Path, help="the list (default: manifest.tsv in --audio)")
    parser.add_argument(
        "--more", type=Path, action="append", default=[], help="folder of copies that train/vocode.py made"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the excerpts, to be made")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    run(main)
