"""The processes that time a model: hung, killed or interrupted, they are gone, and the reason is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.timing.worker_handle import Artifact, Worker, WorkerFailed
from tests.latency.timed_models import TIME_OUT_S, endless_model_bytes, write_model


def test_hung_worker_is_given_up_and_ended(tmp_path: Path) -> None:
    path = tmp_path / "endless.onnx"
    path.write_bytes(endless_model_bytes())
    with (
        Worker(Artifact("endless", path), 1, time_out=4) as worker,
        pytest.raises(WorkerFailed, match="no answer within 4 s"),
    ):
        worker.ready()
    assert worker.process.returncode == -signal.SIGKILL


def test_killed_worker_says_so_and_is_gone(tmp_path: Path) -> None:
    with Worker(Artifact("a", write_model(tmp_path / "a.onnx", 2)), 1, TIME_OUT_S) as worker:
        assert worker.ready()["facts"]["format"] == "onnx"
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        with pytest.raises(WorkerFailed, match="killed by SIGKILL, perhaps for want of memory"):
            worker.run(0)
    assert worker.process.returncode == -signal.SIGKILL


def test_interrupt_ends_the_command_and_its_workers(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.onnx", 2)
    command = [sys.executable, "-m", "benchmarks.latency", str(path), "--repeats", "1000000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "warming up" not in process.stderr.readline():
        assert process.poll() is None
    workers = children(process.pid)
    assert workers
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip().endswith("interrupted")
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def children(pid: int) -> list[int]:
    """The processes that a process started, where the system tells."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("needs the list of a process's children in /proc")
    return [int(child) for child in path.read_text().split()]
