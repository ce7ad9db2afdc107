"""The process that times one artifact: does one run whenever its parent asks, and reports the times.

Started by `benchmarks.timing.worker_handle`, with the thread counts of the maths libraries already in its
environment; not for use by hand. Its only argument is the number of the open pipe to its parent.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError, one_line
from antispoof.manifest import describe_file
from antispoof.speechlike import speech_like
from benchmarks.timing.subjects import Subject, import_library, open_subject
from benchmarks.timing.worker_handle import Following

LOOK_S = 0.005
IDLE_LOOKS = 3  # in a row: a looping thread may just be waiting for a core
LONGEST_SPIN_S = 0.5
CLIPS = 4  # different speech-like signals, so that no branch predictor or cache learns one by heart


def main() -> int:
    """Opens the artifact that the parent names and serves runs until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal interrupts all at once; the parent decides
    pipe = Connection(int(sys.argv[1]))
    try:
        order = pipe.recv()
        serve(pipe, Path(order["path"]), order["threads"], order["model"], order["following"])
    except (EOFError, BrokenPipeError):
        return 0  # the parent is done, or gone
    except UserError as error:
        pipe.send({"failed": one_line(error)})
    except Exception as error:  # whatever a runtime raises is that artifact's result
        pipe.send({"failed": f"{type(error).__name__}: {one_line(error)[:300]}"})
        raise
    return 1


def serve(pipe: Connection, path: Path, threads: int, model: str | None, following: Following | None) -> None:
    """Loads, runs once, reports both, then does a run of clip ``i`` for every ``i`` received.

    A negative number asks for the peak of memory instead.
    """
    file = describe_file(path)
    import_library(path)
    reset_peak_memory()
    before = memory_kib("VmRSS")
    subject, load = timed(lambda: open_subject(path, threads=threads, model=model, following=following))
    loaded = memory_kib("VmRSS")
    clips = _clips(subject)
    outputs, first = timed(lambda: subject.run(clips[0]))
    score = subject.score(outputs)
    if not np.isfinite(score):
        raise UserError(f"{path}: returned {score} for a speech-like clip")
    facts = {
        "bytes": file.bytes,
        "sha256": file.sha256,
        **subject.facts,
        "shape": subject.shape,
        "score": score,
    }
    pipe.send({"facts": facts, "load": load, "first": first, "before_kib": before, "loaded_kib": loaded})
    del outputs
    gc.disable()  # as timeit does: a collection in the middle of a run is not the run's
    while True:
        index = pipe.recv()
        if index < 0:
            pipe.send(memory_kib("VmHWM"))
        else:
            clip = clips[index % len(clips)]
            _, times = timed(lambda clip=clip: subject.run(clip))
            if threads > 1:
                wait_until_idle()
            pipe.send(times)


def _clips(subject: Subject) -> list[np.ndarray]:
    """Returns inputs of the subject's shape, speech-like, the same for every subject of that shape."""
    count = int(np.prod(subject.shape[:-1]))
    samples = subject.shape[-1]
    signals = np.stack([speech_like(seed, samples) for seed in range(CLIPS)])
    return [
        np.resize(np.roll(signals, -i, axis=0), (count, samples)).reshape(subject.shape) for i in range(CLIPS)
    ]


def timed(call: Any) -> tuple[Any, tuple[float, float]]:
    """Returns what ``call()`` returns, and how many seconds it took: by the clock, and of the processor."""
    processor, clock = time.process_time, time.perf_counter
    cpu, wall = processor(), clock()
    result = call()
    wall, cpu = clock() - wall, processor() - cpu
    return result, (wall, cpu)


def wait_until_idle() -> None:
    """Waits until this process's other threads have gone to sleep.

    ONNX Runtime's threads look for more work in a loop for up to a tenth of a second after a run. The
    artifact whose turn comes next, in another process, would have to share the cores with them.
    """
    idle = 0
    deadline = time.perf_counter() + LONGEST_SPIN_S
    while idle < IDLE_LOOKS and time.perf_counter() < deadline:
        cpu = time.process_time()
        time.sleep(LOOK_S)
        idle = idle + 1 if time.process_time() - cpu < LOOK_S / 10 else 0


def reset_peak_memory() -> None:
    """Makes Linux forget the highest memory use so far, which importing may have reached."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # not Linux, or not allowed: the peak may then be that of the imports


def memory_kib(field: str) -> int | None:
    """Returns ``VmRSS`` (resident now) or ``VmHWM`` (its peak) of this process; None except on Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


if __name__ == "__main__":
    raise SystemExit(main())
