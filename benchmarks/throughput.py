"""Measures how fast a corpus is scored with every core at work, and how near that is to the bare runtime.

    python benchmarks/throughput.py out/aasist-l.onnx
    python benchmarks/throughput.py out/a.onnx out/b.onnx --audio clips/ --workers 8 --json throughput.json

For each MODEL two things take turns, with as many workers as there are cores and one thread in each: the
runtime alone, over and over on clips in memory; and what score.py does with files, decoding included. The
share is the median over rounds of the ratio of their rates, with its 95 % bootstrap interval: by the clock,
and by processor time, which other programs on the machine disturb less. Without --audio, FLAC files of
speech-like clips are generated and read. To score at this rate: score.py --workers N.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from antispoof.audio import SAMPLE_RATE
from antispoof.bootstrap import Interval
from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.manifest import File, describe_file
from antispoof.outputs import refuse_existing
from antispoof.speechlike import speech_like, speech_like_batch
from benchmarks.latency import parse_artifacts
from benchmarks.results_file import gather_conditions, load_average, write_results
from benchmarks.timing.ratios import ratio_interval
from benchmarks.timing.worker_handle import Artifact, Times
from runtimes import Runtime, load
from runtimes.clips import Clip, find_clips
from runtimes.score import score_in_order

KIND = "throughput"
GENERATED_CLIPS = 8
PER_WORKER = 4  # clips of a worker in each half of a round: enough that the last one's wait hardly counts


@dataclass(frozen=True)
class Rates:
    """How fast a model scores, bare and whole, as the results file has it.

    Attributes:
        label: The model.
        file: Its file.
        workers: How many files were scored at a time.
        rounds: How often each was measured.
        clips_per_round: How many clips that took.
        clips_per_s: Of each, by the clock.
        cpu_ms_per_clip: Of each, processor time.
        share: What is left with files around the runtime, by the clock and by processor time.
    """

    label: str
    file: File
    workers: int
    rounds: int
    clips_per_round: int
    clips_per_s: dict[str, float]
    cpu_ms_per_clip: dict[str, float]
    share: dict[str, Interval]


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="throughput.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("models", nargs="+", metavar="MODEL", help="an exported file, or NAME=FILE")
    p.add_argument("--audio", type=Path, metavar="DIR", help="recordings to score (default: generated)")
    p.add_argument("--workers", type=int, metavar="N", help="files scored at a time (default: the cores)")
    p.add_argument("--rounds", type=int, default=20, metavar="N", help="measured rounds (default 20)")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def write_corpus(folder: Path) -> None:
    """Writes FLAC files of speech-like clips, of the length of the models' clip."""
    for seed in range(GENERATED_CLIPS):
        soundfile.write(folder / f"{seed}.flac", speech_like(seed), SAMPLE_RATE)


def bare_run(runtime: Runtime, workers: int) -> Callable[[int], None]:
    """Returns what scores a number of clips that lie in memory, with nothing around the runtime."""
    batch = runtime.input.batch or 1
    clips = speech_like_batch(GENERATED_CLIPS, runtime.input.samples)
    inputs = [np.ascontiguousarray(np.resize(clip, (batch, clip.size))) for clip in clips]

    def compute(count: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(runtime._run, [inputs[index % len(inputs)] for index in range(count)]))

    return compute


def whole_run(runtime: Runtime, clips: Sequence[Clip], workers: int) -> Callable[[int], None]:
    """Returns what scores a number of files as score.py does.

    Raises:
        UserError: From what it returns, where a file cannot be scored.
    """

    def compute(count: int) -> None:
        for row in score_in_order(runtime, [clips[index % len(clips)] for index in range(count)], workers):
            if row.score is None:
                raise UserError(f"{row.name} cannot be scored: {row.problem}")

    return compute


def timed(compute: Callable[[int], None], count: int) -> Times:
    """Returns the seconds that ``compute(count)`` takes: by the clock and of the processor."""
    cpu, wall = time.process_time(), time.perf_counter()
    compute(count)
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(artifact: Artifact, clips: Sequence[Clip], workers: int, rounds: int) -> Rates:
    """Returns both rates of a model in clips a second, and the share that is left with files around it."""
    runtime = load(artifact.path, threads=1, model=artifact.model)
    tasks = {"bare": bare_run(runtime, workers), "whole": whole_run(runtime, clips, workers)}
    count = workers * PER_WORKER
    times: dict[str, list[Times]] = {name: [] for name in tasks}
    for compute in tasks.values():
        compute(count)  # warms up
    for index in range(rounds):
        for name in sorted(tasks, reverse=bool(index % 2)):  # each is first as often
            times[name].append(timed(tasks[name], count))
    shares = {
        clock: ratio_interval(*([one[at] for one in times[name]] for name in ("bare", "whole")))
        for at, clock in enumerate(("wall", "cpu"))
    }
    return Rates(
        artifact.label,
        describe_file(artifact.path),
        workers,
        rounds,
        count,
        clips_per_s={name: count / median(wall for wall, _ in taken) for name, taken in times.items()},
        cpu_ms_per_clip={
            name: 1e3 * median(cpu for _, cpu in taken) / count for name, taken in times.items()
        },
        share=shares,
    )


def table(rows: Sequence[Rates]) -> str:
    """Returns the rows as text."""
    width = max(len(row.label) for row in rows)
    lines = [f"{'model':<{width}}  workers  bare/s  files/s  share by the clock     share by processor time"]
    for row in rows:
        rates, shares = row.clips_per_s, (row.share[clock] for clock in ("wall", "cpu"))
        cells = (f"{one.estimate:.1%} ({one.low:.1%} to {one.high:.1%})" for one in shares)
        lines.append(
            f"{row.label:<{width}}  {row.workers:>7}  {rates['bare']:>6.1f}  {rates['whole']:>7.1f}  "
            + "  ".join(cells)
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    artifacts = parse_artifacts(args.models, None)
    conditions = gather_conditions((1,))
    workers = args.workers or conditions["cpu"]["usable_cores"]
    if workers < 1 or args.rounds < 1:
        raise UserError("--workers and --rounds take at least 1")
    if args.json:
        refuse_existing(args.json, args.force)
    with tempfile.TemporaryDirectory() as folder:
        if args.audio is None:
            write_corpus(Path(folder))
        clips = find_clips([args.audio or Path(folder)])
        rows = [measure(artifact, clips, workers, args.rounds) for artifact in artifacts]
    if args.json:
        conditions |= {
            "load_average_after": load_average(),
            "corpus": "FLAC, speech-like, generated" if args.audio is None else f"{len(clips)} recordings",
        }
        write_results(args.json, KIND, conditions, [asdict(row) for row in rows], args.force)
    print(table(rows))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
