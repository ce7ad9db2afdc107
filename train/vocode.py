"""Makes spoofed copies of bona fide speech, for training where no attacks are at hand.

    python train/vocode.py --audio DIR --config train/configs/fscnn.yaml --copies 6 --out resynthesised/
    python train/fit.py --config train/configs/fscnn.yaml --audio DIR --more resynthesised/ --out RUN

Every bona fide recording of the train split is taken apart and put together again a few times, each time in
another way (train/resynthesis.py) and at another sample rate. A copy is as loud as its original; where it
would clip, it is made quieter, and paired with an original made quieter by as much. --vocoder adds networks
that train/neural_vocoder.py trained, or the codec Lyra V2 (train/lyra.py), --program vocoders that are
programs of their own (train/vocoder_program.py).
Some copies then go through a codec, and their original with them; the spoofs of the train split go through
codecs too. The folder holds FLAC files and a manifest.tsv whose column ``source`` says what each was made of:
training puts both into one batch. One way only resamples; its copies stay bona fide.
A run that was stopped goes on with --resume. Settings are drawn from the seed, the path and the copy's number
alone.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np
import soxr
import torch
from tqdm import tqdm

from antispoof.audio import SAMPLE_RATE, load_audio
from antispoof.channel import codecs, transcode
from antispoof.errors import UserError, run
from antispoof.manifest import describe_file
from antispoof.outputs import make_folder, write_whole
from antispoof.protocols import BONAFIDE, NOISE, SPOOF, UNKNOWN
from train.augment import BIT_RATES
from train.dataset import Row, check_usable, may_train, read_rows, refuse_all
from train.lyra import load_lyra
from train.made_clips import write_clip, write_list
from train.neural_vocoder import load_vocoder
from train.program import find_program
from train.recipe import read_recipe
from train.resynthesis import HARMLESS, SPOOFING, Resynthesis, cross
from train.vocoder_program import by_program

RATES = (16_000, 22_050, 22_050, 24_000)  # of synthesis systems, the commonest one twice
PROGRAM_RATE = 16_000  # Hz, what a program or codec is told it gets
SLOWEST_RATE = 21_000  # Hz, of half of what it really gets: other pitches, and its frames at other lengths
HARMLESS_SHARE = 0.1
LEAST_SAMPLES = 8_000
PEAK = 0.98  # of full scale, the highest of a copy
# A setting that copies of older versions lack.
LEVEL = "of the original, both quieter where the copy would clip"
LYRA = "lyra"  # what its copies are called in the list
COLUMNS = ("path", "label", "split", "dataset", "attack", "source", "licence")


@dataclass(frozen=True)
class Job:
    """One copy to make."""

    row: Row
    copy: int
    out: Path
    seed: int
    vocoders: tuple[str, ...]
    codec_share: float
    codecs: tuple[str, ...]
    neural_share: float
    cross_share: float
    ways: tuple[str, ...]

    @property
    def settings(self) -> dict[str, object]:
        """What all copies of a folder have in common, but for their number."""
        shared = ("seed", "codec_share", "codecs", "neural_share", "cross_share", "ways")
        vocoders = [describe_file(way).sha256 if Path(way).is_file() else way for way in self.vocoders]
        found = {name: getattr(self, name) for name in shared} | {"vocoders": vocoders, "level": LEVEL}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    @property
    def name(self) -> str:
        """Path of the copy inside the folder."""
        stem = self.row.path.removesuffix(Path(self.row.path).suffix).replace("/", "__")
        return f"{stem}.{self.copy}.flac"


Line = dict[str, str]  # of the list, by column
_vocoders: dict[str, tuple[int, Resynthesis]] = {}  # of this process, loaded once


def make_copies_of(job: Job) -> list[Line] | str:
    """Writes one copy, and its original where codec or level change that too; returns their lines.

    No lines where the recording does not lend itself to it; where it cannot be read, the complaint.
    """
    generator = np.random.default_rng([job.seed, zlib.crc32(job.row.path.encode()), job.copy])
    coded = generator.random() < job.codec_share
    codec = str(generator.choice(list(job.codecs))) if coded else None
    bit_rate = int(generator.choice(BIT_RATES[codec])) if codec else None
    way = "" if job.row.label == SPOOF else choose(job, generator)
    try:
        original = load_audio(job.row.folder / job.row.path)
    except UserError as error:
        return str(error)
    copied = original if job.row.label == SPOOF else resynthesise(original, way, generator)
    if copied is None or (job.row.label == SPOOF and codec is None):
        return []
    label, attack = SPOOF, job.row.attack
    if job.row.label == BONAFIDE:
        label = BONAFIDE if way in HARMLESS else SPOOF
        attack = UNKNOWN if label == BONAFIDE else _name(way)
        if way in job.vocoders and generator.random() < job.cross_share:
            copied, half = cross(original, copied, generator)
            copied = _at_level_of(original, copied)
            attack = f"neural {half}"
    known = {"split": "train", "dataset": f"copies of {job.row.dataset}", "licence": job.row.licence}
    line = {**known, "path": job.name, "label": label, "attack": attack, "source": job.row.path}
    # Of a pair, nothing but the copying may tell one from the other, nor may the level.
    gain = 1.0 if job.row.label == SPOOF else min(1.0, PEAK / float(np.abs(copied).max()))
    write_clip(job.out / job.name, _coded(gain * copied, codec, bit_rate))
    if job.row.label == SPOOF or (codec is None and gain == 1.0):
        return [line]
    twin = job.name.replace(".flac", ".original.flac")
    write_clip(job.out / twin, _coded(gain * original, codec, bit_rate))
    bonafide = {**line, "path": twin, "label": BONAFIDE, "attack": UNKNOWN}
    return [bonafide, {**line, "source": twin}]


def _coded(waveform: np.ndarray, codec: str | None, bit_rate: int | None) -> np.ndarray:
    return waveform if codec is None else transcode(waveform, codec, bit_rate)


def _at_level_of(original: np.ndarray, copied: np.ndarray) -> np.ndarray:
    """Returns a copy at the RMS of its original; an offset, which few ways keep, is no part of the level."""
    return copied * (original.std() / copied.std())


def _codecs() -> list[str]:
    """Returns the codecs with bit rates that are here."""
    return [name for name in BIT_RATES if name in codecs()]


def _name(way: str) -> str:
    """Returns what a way of copying is called in the list."""
    program, equals, _ = way.partition("=")
    if Path(way).is_dir():
        return LYRA
    return program if equals else Path(way).name.removesuffix(".safetensors")


def choose(job: Job, generator: np.random.Generator) -> str:
    """Returns the way that a copy of bona fide speech is made."""
    draw = generator.random()
    if draw < HARMLESS_SHARE:
        return str(generator.choice(list(HARMLESS)))
    if job.vocoders and draw < HARMLESS_SHARE + job.neural_share:
        return job.vocoders[generator.integers(len(job.vocoders))]
    return str(generator.choice(list(job.ways)))


def resynthesise(original: np.ndarray, way: str, generator: np.random.Generator) -> np.ndarray | None:
    """Returns a copy (samples,) at the level of the original, its peaks unbounded; None where it failed.

    Args:
        original: At 16 kHz.
        way: A key of `SPOOFING` or `HARMLESS`, the path of a trained vocoder, the folder of Lyra V2, or a
            program as NAME=COMMAND.
        generator: Draws the settings.
    """
    if len(original) < LEAST_SAMPLES or original.std() < 1e-4:
        return None
    if way in SPOOFING or way in HARMLESS:
        rate = int(generator.choice(RATES))
        method = {**SPOOFING, **HARMLESS}[way]
    elif (believer := _believer(way)) is not None:
        slowed = generator.random() < 0.5
        rate = int(generator.uniform(PROGRAM_RATE, SLOWEST_RATE)) if slowed else PROGRAM_RATE
        method = believer
    else:
        if way not in _vocoders:
            _vocoders[way] = load_vocoder(Path(way))
        rate, method = _vocoders[way]
    copied = method(soxr.resample(original, SAMPLE_RATE, rate).astype(np.float32), rate, generator)
    copied = soxr.resample(np.asarray(copied, np.float32), rate, SAMPLE_RATE)[: len(original)]
    copied = np.pad(copied, (0, len(original) - len(copied)))
    if not np.isfinite(copied).all() or copied.std() < 1e-6:
        return None
    return _at_level_of(original, copied)


def _believer(way: str) -> Resynthesis | None:
    """Returns a codec or program, which believes that it gets 16 kHz; None where the way is neither."""
    if Path(way).is_dir():
        return load_lyra(Path(way))
    return by_program(way.partition("=")[2]) if "=" in way else None


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    journal = args.out / "journal.jsonl"
    if args.out.is_dir() and any(args.out.iterdir()) and not args.resume:
        raise UserError(f"{args.out} is not empty; --resume goes on with it")
    if args.copies < 1:
        raise UserError(f"--copies must be at least 1, not {args.copies}")
    for program in args.program:
        if not all(part.strip() for part in program.partition("=")):
            raise UserError(f"--program takes NAME=COMMAND, got {program!r}")
    for name in ("codec_share", "neural_share", "cross_share"):
        if not 0 <= getattr(args, name) <= 1:
            raise UserError(f"--{name.replace('_', '-')} must be in 0 to 1, not {getattr(args, name):g}")
    if args.workers < 1:
        raise UserError(f"--workers must be at least 1, not {args.workers}")
    for vocoder in args.vocoder:  # complains before anything is made
        if vocoder.is_dir():
            load_lyra(vocoder)
        else:
            load_vocoder(vocoder)
    for program in args.program:
        find_program(program.partition("=")[2])
    data = read_recipe(args.config).data
    rows = read_rows(args.protocol or args.audio / "manifest.tsv", args.audio)
    speech = [row for row in rows if row.split == "train" and row.label != NOISE and may_train(row, data)]
    check_usable(rows, BONAFIDE, data)
    make_folder(args.out)
    jobs = [
        Job(
            row,
            copy,
            args.out,
            args.seed,
            (*map(str, args.vocoder), *args.program),
            args.codec_share,
            tuple(args.codec or _codecs()),
            args.neural_share,
            args.cross_share,
            tuple(args.way or SPOOFING),
        )
        for row in speech
        for copy in range(args.copies if row.label == BONAFIDE else 1)
    ]
    _check_names(jobs)
    lines = make_copies(jobs, args.workers, journal)
    listed = write_list(args.out, COLUMNS, lines)
    print(f"{len(lines)} copies of {len(speech)} recordings: {listed}")
    return 0


def _check_names(jobs: Sequence[Job]) -> None:
    """Refuses recordings whose copies would replace one another, such as ``a.wav`` and ``a.flac``.

    Raises:
        UserError: There are two of them.
    """
    first: dict[str, Job] = {}
    for job in jobs:
        other = first.setdefault(job.name, job)
        if other is not job:
            raise UserError(
                f"{other.row.path} and {job.row.path} would both be copied to {job.name}: rename one"
            )


def make_copies(jobs: Sequence[Job], workers: int, journal: Path) -> list[Line]:
    """Makes all copies in several processes; returns their lines of the list, in the order of the jobs.

    Args:
        jobs: What to make.
        workers: Number of processes.
        journal: Where the settings, and finished jobs as they finish, are noted; those that it holds are not
            done again.

    Raises:
        UserError: The journal is of other settings, or of jobs that are no longer wanted; or recordings
            cannot be read, which are told once the copies of all others are there, lest each cost an attempt.
    """
    done = _done(journal, jobs)
    refused: dict[str, str] = {}
    left = [job for job in jobs if job.name not in done]
    # Started afresh: a process forked from one that has run torch may hang in its threads.
    with (
        ProcessPoolExecutor(workers, get_context("spawn"), _begin) as pool,
        journal.open("a", encoding="utf-8", buffering=1) as notes,
    ):
        made = pool.map(make_copies_of, left, chunksize=8)
        progress = tqdm(
            zip(left, made, strict=True),
            initial=len(done),
            total=len(jobs),
            desc="copying",
            unit="copy",
            disable=None,
        )
        for job, lines in progress:
            if isinstance(lines, str):
                refused[job.row.path] = lines
                continue
            done[job.name] = lines
            notes.write(json.dumps({"job": job.name, "lines": lines}) + "\n")
    refuse_all(list(refused.values()), "recordings cannot be copied")
    return [line for job in jobs for line in done[job.name]]


def _done(journal: Path, jobs: Sequence[Job]) -> dict[str, list[Line]]:
    """Returns the lines of the jobs that a journal holds; begins one that does not exist."""
    settings = jobs[0].settings
    complete = journal.read_text(encoding="utf-8").split("\n")[:-1] if journal.exists() else []
    try:
        entries = list(map(json.loads, complete))  # the last line may be half of one
        noted = entries[0]["settings"] if entries else settings
        other = [name for name in settings if noted.get(name) != settings[name]]
        done = {entry["job"]: entry["lines"] for entry in entries[1:]}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{journal} is damaged, or of another version; give another --out") from None
    if other:
        raise UserError(f"{journal.parent} was made with other {', '.join(other)}; give another --out")
    if unwanted := set(done) - {job.name for job in jobs}:
        raise UserError(f"{journal.parent} holds copies that are not wanted now, such as {min(unwanted)}")
    write_whole(journal, "".join(line + "\n" for line in complete or [json.dumps({"settings": settings})]))
    return done


def _begin() -> None:
    """Readies a worker: one thread, and an end when its parent's comes, of which a hard kill tells nobody."""
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vocode.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--protocol", type=Path, help="the list (default: manifest.tsv in --audio)")
    parser.add_argument(
        "--config", type=Path, required=True, help="recipe whose data section says what may be used"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the copies")
    parser.add_argument("--copies", type=int, default=4, help="of each recording (default: %(default)s)")
    parser.add_argument(
        "--vocoder",
        type=Path,
        action="append",
        default=[],
        help="a trained vocoder, or a folder with Lyra V2's three TFLite files; may be given several times",
    )
    parser.add_argument(
        "--program",
        metavar="NAME=COMMAND",
        action="append",
        default=[],
        help="a vocoder that is a program: COMMAND, then the paths of raw samples to read and to write",
    )
    parser.add_argument(
        "--way", action="append", choices=sorted(SPOOFING), help="one of those to use (default: all of them)"
    )
    parser.add_argument(
        "--neural-share",
        type=float,
        default=0.35,
        help="of copies by --vocoder and --program (default: %(default)s)",
    )
    parser.add_argument(
        "--cross-share",
        type=float,
        default=0.0,
        help="of these, those that keep half of their original, and so are harder (default: %(default)s)",
    )
    parser.add_argument(
        "--codec-share",
        type=float,
        default=0.3,
        help="of copies that go through a codec (default: %(default)s)",
    )
    parser.add_argument(
        "--codec", action="append", choices=_codecs(), help="one of those to use (default: all of them)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with the copies in --out")
    return parser


if __name__ == "__main__":
    run(main)
