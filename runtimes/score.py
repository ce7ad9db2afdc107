"""Scores recordings with a model file: one row for each, a higher score means more likely bona fide.

    python runtimes/score.py out/fscnn.onnx clips/ call.mp3 --out scores.tsv
    python runtimes/score.py out/fscnn.onnx LA/eval/flac --protocol eval.trl.txt --out scores.tsv
    python runtimes/score.py weights.pth --model aasist-l clips/ > scores.tsv

The table is tab-separated with the columns path and score; where the model's manifest holds a calibration
also llr, and where it holds a calibration or thresholds decision (bonafide or spoof). A path is relative to
the folder given; with --protocol it is what the protocol calls the trial. Of a folder, the files named like
audio or video are scored, those in its folders too; links are followed, hidden names left out. A file is
decoded only as far as the model listens: damage behind that goes unnoticed.

With --out, rows are kept in OUT.partial while the work goes on. After an interruption the same command goes
on from there, and OUT appears when all is done; the audio is taken to be unchanged. What cannot be scored is
listed at the end and not in the table, and the exit code is 1; where nothing could, no table is written.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from antispoof.audio import fit_length, load_head
from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, CheckFailed, UserError, one_line, run
from antispoof.outputs import refuse_to_replace
from antispoof.protocols import BONAFIDE, LAYOUTS
from runtimes import Runtime, load
from runtimes.clips import Clip, find_clips, protocol_clips
from runtimes.score_table import Partial, Row, Table, conditions_of, table_of

NOT_FOR_TABLES = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # the last: bytes that are not UTF-8
LOOK_AHEAD = 8  # files per worker that may be done before one ahead of them in the list is


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    p = argparse.ArgumentParser(
        prog="score.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("model_file", type=Path, metavar="MODEL", help="an exported file, or a checkpoint")
    p.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="a recording, or a folder of them")
    p.add_argument("--protocol", type=Path, help="score the trials of this list; PATH is their folder")
    p.add_argument("--protocol-format", choices=LAYOUTS, help="default: recognised from its first line")
    p.add_argument("--split", help="score only this split of the protocol")
    p.add_argument("--out", type=Path, default=Path("-"), metavar="FILE", help="default: standard output")
    p.add_argument("--threshold", metavar="NAME", help="operating point to decide at (default: the first)")
    p.add_argument("--model", metavar="NAME", help="which network, for a checkpoint that does not tell")
    p.add_argument("--trusted-key", type=Path, metavar="FILE", help="open only what this key has signed")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="threads within one run (default 1)")
    p.add_argument("--workers", type=int, default=1, metavar="N", help="files scored at a time (default 1)")
    p.add_argument("--force", action="store_true", help="replace OUT, and an OUT.partial of other conditions")
    return p


def score_clip(runtime: Runtime, clip: Clip) -> Row:
    """Scores one clip in a run of its own, so that its score depends on no other."""
    if clip.name != clip.name.strip() or NOT_FOR_TABLES.search(clip.name):
        return Row(
            clip.name, None, "a name with control characters, outer blanks or bytes that are not UTF-8"
        )
    samples = runtime.input.samples
    path = Path()
    try:
        path = clip.locate()
        score = runtime.score(fit_length(load_head(path, samples), samples)[None])[0]
    except UserError as error:
        return Row(clip.name, None, one_line(error).removeprefix(f"{os.fspath(path)!r} "))
    except OSError as error:
        return Row(clip.name, None, f"cannot be read: {error.strerror}")
    return Row(clip.name, str(score))


def score_in_order(runtime: Runtime, clips: Iterable[Clip], workers: int) -> Generator[Row, None, None]:
    """Scores with several threads and yields in the order of ``clips``, holding only a few results.

    Threads are enough: the decoders and the runtimes let go of the interpreter while they work.
    """
    pool = ThreadPoolExecutor(workers)
    window: deque[Future[Row]] = deque()
    try:
        for clip in clips:
            window.append(pool.submit(score_clip, runtime, clip))
            if len(window) == workers * LOOK_AHEAD:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def score_all(args: argparse.Namespace, runtime: Runtime, table: Table, clips: Sequence[Clip]) -> list[Row]:
    """Writes the table to where the arguments say; returns the rows that have no score."""
    if str(args.out) == "-":
        with closing(score_in_order(runtime, clips, args.workers)) as rows:
            return table.write(_with_progress(rows, len(clips), shown=not sys.stdout.isatty()), sys.stdout)
    conditions = conditions_of(args.model_file, args.model, clips)
    try:
        with Partial(Path(f"{args.out}.partial"), conditions, clips, force=args.force) as partial:
            rest = itertools.islice(clips, partial.done, None)
            with closing(score_in_order(runtime, rest, args.workers)) as rows:
                _keep(_with_progress(rows, len(clips), done=partial.done), partial)
            failed = _write_whole(table, partial, args.out)
        partial.path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {args.out}: {error.strerror}") from error
    return failed


def _with_progress(rows: Iterable[Row], total: int, *, done: int = 0, shown: bool = True) -> Iterable[Row]:
    """Shows a bar on a terminal, and nothing in a log."""
    return tqdm(rows, total=total, initial=done, unit="file", disable=None if shown else True)


def _keep(rows: Iterable[Row], partial: Partial) -> None:
    try:
        for row in rows:
            partial.append(row)
    except KeyboardInterrupt:
        done = f"{partial.done:,} of {len(partial.clips):,} files are done"
        print(f"{done} (kept in {partial.path}); the same command goes on from there", file=sys.stderr)
        raise


def _write_whole(table: Table, partial: Partial, out: Path) -> list[Row]:
    """Writes the table so that it is there whole or not at all; returns the rows that have no score."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as handle:
            failed = table.write(partial.rows(), handle)
        if len(failed) < partial.done:
            unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return failed


def report(failed: Sequence[Row], total: int) -> int:
    """Lists on stderr what could not be scored and why; returns the exit code.

    Raises:
        CheckFailed: That was all.
    """
    for row in failed:
        print(f"not scored: {row.name!r}: {row.problem}", file=sys.stderr)
    if len(failed) == total:
        raise CheckFailed(f"none of {total:,} files could be scored; no table was written")
    if failed:
        print(f"{len(failed):,} of {total:,} files are not in the table", file=sys.stderr)
    return EXIT_CHECK_FAILED if failed else EXIT_DONE


def check_arguments(args: argparse.Namespace) -> None:
    """Refuses, before any work, what cannot end well.

    Raises:
        UserError: Flags that do not fit together, or a table that exists or has no folder.
    """
    if args.workers < 1:
        raise UserError(f"--workers must be at least 1, not {args.workers}")
    if args.protocol is None and (args.split is not None or args.protocol_format is not None):
        raise UserError("--split and --protocol-format belong to a protocol; name it with --protocol")
    if str(args.out) == "-":
        return
    if args.out.exists() and not args.out.is_file():
        raise UserError(f"{args.out} is not a regular file; --out takes the name of a table")
    refuse_to_replace([args.out], args.force)
    if not args.out.parent.is_dir():
        raise UserError(f"{args.out.parent}: no such folder to write {args.out.name} into")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    1. list what is to be scored
    2. open the model
    3. score, into the partial file or to standard output
    4. write the table and say what is not in it
    """
    args = build_parser().parse_intermixed_args(argv)
    check_arguments(args)
    if args.protocol:
        clips = protocol_clips(args.paths, args.protocol, args.protocol_format, args.split)
    else:
        clips = find_clips(args.paths)
    runtime = load(args.model_file, threads=args.threads, model=args.model, trusted_key=args.trusted_key)
    table = table_of(runtime.manifest, args.threshold)
    if point := table.threshold:
        print(f"decision: {BONAFIDE} from a score of {point.score:g} up ({point.name})", file=sys.stderr)
    return report(score_all(args, runtime, table, clips), len(clips))


if __name__ == "__main__":
    run(main)
