"""Scores model files on emulated processors and compares with this machine's scores.

    python benchmarks/processors.py out/fscnn.w8a8-rr.onnx out/fscnn.w8a8-rr-f64.onnx
    python benchmarks/processors.py out/*.tflite --json benchmarks/results/processors-fscnn.json

Haswell stands for x86 without VNNI, as many laptops and CI machines are; Cortex-A53 and A76 for small and
large ARM cores, without and with dot products of integers.

Exits with 1 where a score is further off than golden scores may be: by a single bit where the recipe promises
the same everywhere (-rr-f64), by 0.05 for other integers. Sums of float32 depend on their order, and that on
the processor; rounded to integers, some become the next one. In ONNX, 8-bit weights without a reduced range
saturate on x86 without VNNI, where such a file's scores are off by tenths of a point and more.

The emulator is fetched when it is first needed, into the user's cache or the folder of --emulator: Debian on
x86-64, 150 MB. It is 100 to 400 times slower than this machine, which says nothing of the processors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from antispoof.errors import EXIT_DONE, CheckFailed, UserError, one_line, run
from antispoof.manifest import Manifest
from antispoof.outputs import refuse_existing
from benchmarks.devices.emulator import PROCESSORS, Emulator, Processor, set_up
from benchmarks.results_file import gather_conditions, write_results
from runtimes import load
from runtimes.golden import golden_clips, golden_tolerance

KIND = "processors"
SCORER = Path(__file__).with_name("emulated_score.py")
FORMATS = ("onnx", "tflite")


@dataclass(frozen=True)
class Comparison:
    """The scores of a file on an emulated processor beside those on this machine.

    Attributes:
        file: The file's name.
        sha256: That of the file.
        recipe: Its recipe.
        processor: The emulated processor's name.
        clips: How many clips were scored.
        differing: How many of them do not score the same to the bit.
        largest_difference: By how much at most.
        allowed: By how much golden scores may differ; 0 where the recipe promises the same everywhere.
    """

    file: str
    sha256: str
    recipe: str
    processor: str
    clips: int
    differing: int
    largest_difference: float
    allowed: float


def compare(
    paths: Sequence[Path], emulator: Emulator, processors: Sequence[Processor] = PROCESSORS
) -> list[Comparison]:
    """Scores generated clips with each file, here and on each processor.

    Raises:
        UserError: A file is not one that can be run so, or it does not run on a processor.
    """
    manifests = [_manifest(path) for path in paths]
    with tempfile.TemporaryDirectory() as folder:
        words = []
        for path, manifest in zip(paths, manifests, strict=True):
            clips = Path(folder, f"{manifest.input.samples}.npy")
            np.save(clips, golden_clips(manifest.input.samples))
            words += [str(path), str(clips)]
        here = scores([sys.executable], words)
        elsewhere = {row.name: scores(emulator.python(row), words) for row in processors}
    return [
        _comparison(path, manifest, name, expected, found)
        for index, (path, manifest, expected) in enumerate(zip(paths, manifests, here, strict=True))
        for name, found in ((name, rows[index]) for name, rows in elsewhere.items())
    ]


def _manifest(path: Path) -> Manifest:
    manifest = load(path).manifest
    if manifest is None or manifest.format not in FORMATS:
        raise UserError(f"{path}: only ONNX and TFLite files can be run on emulated processors")
    return manifest


def scores(python: Sequence[str], words: Sequence[str]) -> list[np.ndarray]:
    """Returns the scores ``(clips,)`` of each file, in float64.

    Args:
        python: The command that starts Python.
        words: What ``emulated_score.py`` takes: files, each with its clips.
    """
    # -P: the libraries must not find this folder's modules in place of their own.
    done = subprocess.run([*python, "-P", str(SCORER), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{Path(python[-1]).name} cannot score: {one_line(done.stderr)[-300:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [np.array([float.fromhex(text) for text in line]) for line in lines]


def _comparison(
    path: Path, manifest: Manifest, processor: str, expected: np.ndarray, found: np.ndarray
) -> Comparison:
    assert manifest.file is not None
    return Comparison(
        file=path.name,
        sha256=manifest.file.sha256,
        recipe=manifest.recipe,
        processor=processor,
        clips=len(expected),
        differing=int((found != expected).sum()),
        largest_difference=float(np.abs(found - expected).max()),
        allowed=golden_tolerance(path, manifest),
    )


def table(rows: Sequence[Comparison]) -> str:
    """Returns a line for each file and processor."""
    cells = [("file", "processor", "largest difference", "allowed", "same to the bit")]
    for row in rows:
        same = f"{row.clips - row.differing} of {row.clips} clips"
        cells.append((row.file, row.processor, f"{row.largest_difference:.2g}", f"{row.allowed:g}", same))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="processors.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("files", type=Path, nargs="+", metavar="FILE", help="an ONNX or TFLite file")
    names = [row.name for row in PROCESSORS]
    p.add_argument("--processor", choices=names, action="append", help="only this one; may be repeated")
    p.add_argument("--emulator", type=Path, metavar="DIR", help="folder of the emulator (default: a cache)")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="replace OUT")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.json:
        refuse_existing(args.json, args.force)
    chosen = [row for row in PROCESSORS if args.processor is None or row.name in args.processor]
    rows = compare(args.files, set_up(args.emulator), chosen)
    print(table(rows))
    if args.json:
        conditions = {
            **gather_conditions(),
            "processors": [{**asdict(row), "emulated": True} for row in chosen],
            "corpus": f"{rows[0].clips} generated clips",
        }
        write_results(args.json, KIND, conditions, [asdict(row) for row in rows], force=args.force)
    wrong = [f"{row.file} on {row.processor}" for row in rows if row.largest_difference > row.allowed]
    if wrong:
        raise CheckFailed(f"other scores than on this machine: {', '.join(wrong)}")
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
