"""The parent's end of a worker: starts the process, asks for runs, and ends it whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

# One run: seconds by the clock and of the processor, all threads of the worker together.
Times = tuple[float, float]

LAST_WORDS = 2_000  # characters of a dead worker's stderr that are passed on
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"),
)


@dataclass(frozen=True)
class Following:
    """That a run is to score windows that follow one another, as a stream does, and how.

    Attributes:
        windows: In a run.
        hop_seconds: From one to the next, or the nearest that the file can.
        fast: Of a file in two halves, whether to take those for the least work.
    """

    windows: int
    hop_seconds: float
    fast: bool = False


@dataclass(frozen=True)
class Artifact:
    """A file to time, what to call it, and whether it is to run as in a stream instead of on a clip."""

    label: str
    path: Path
    model: str | None = None
    following: Following | None = None


class WorkerFailed(Exception):
    """The worker gave no answer; the message says why."""


class Worker:
    """A process that has one artifact open. Leaving the ``with`` block ends it, whatever it is doing."""

    def __init__(self, artifact: Artifact, threads: int, time_out: float) -> None:
        self.artifact = artifact
        self.time_out = time_out
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed on leaving the block
        self._pipe, theirs = Pipe()
        with theirs:
            # -P: the folder that the command was started from must not provide the modules.
            command = (sys.executable, "-P", "-m", "benchmarks.timing.worker", str(theirs.fileno()))
            self.process = subprocess.Popen(
                command,
                env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
            )
        order = {"path": str(artifact.path), "threads": threads, "model": artifact.model}
        self._pipe.send(order | {"following": artifact.following})

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._pipe.close()
        self._errors.close()

    def ready(self) -> dict[str, Any]:
        """Waits until the artifact is loaded and has run once; returns what the worker says of it."""
        return self._answer()

    def run(self, clip: int) -> Times:
        """Lets the artifact run once."""
        self._ask(clip)
        return self._answer()

    def peak_kib(self) -> int | None:
        """Returns the highest resident memory so far, in KiB, where the system tells."""
        self._ask(-1)
        return self._answer()

    def _ask(self, request: int) -> None:
        try:
            self._pipe.send(request)
        except OSError as error:
            raise WorkerFailed(self._cause_of_death()) from error

    def _answer(self) -> Any:
        if not self._pipe.poll(self.time_out):
            raise WorkerFailed(f"no answer within {self.time_out:g} s")
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerFailed(self._cause_of_death()) from error
        if isinstance(answer, dict) and "failed" in answer:
            # Results are published; where the file lies on this machine is nobody's business.
            raise WorkerFailed(answer["failed"].replace(str(self.artifact.path), self.artifact.path.name))
        return answer

    def _cause_of_death(self) -> str:
        code = self.process.wait()
        if code >= 0:
            return f"the worker ended with exit code {code}"
        hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"the worker was killed by {signal.Signals(-code).name}{hint}"

    def last_words(self) -> str:
        """Returns the end of what the worker and its libraries printed."""
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - LAST_WORDS))
        return self._errors.read().decode(errors="replace").strip()
