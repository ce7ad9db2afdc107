"""A real adbd on loopback, with stand-ins for a phone's own tools, and a runner in Python to push to it.

The daemon is Debian's (package adbd, from trixie on); $ANTISPOOF_ADBD may name a folder it was unpacked into
with the packages that it needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SERIAL = "127.0.0.1:5555"  # adbd's own port, on the loopback of a network where nothing else is
INSTALLED = Path("/usr/lib/android-sdk/platform-tools/adbd")
RUNNER = f"""#!{sys.executable}
import argparse, json, resource, sys, time
import numpy, onnxruntime
p = argparse.ArgumentParser()
for flag in ("--model", "--clips", "--samples", "--threads", "--runs"):
    p.add_argument(flag)
a = p.parse_args()
clock = time.perf_counter
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(a.threads)
start = clock()
session = onnxruntime.InferenceSession(a.model, options, providers=["CPUExecutionProvider"])
load = clock() - start
clips = numpy.fromfile(a.clips, "<f4").reshape(-1, 1, int(a.samples))
def run(clip):
    start = clock()
    score = float(session.run(None, {{"waveform": clip}})[0][0])
    return score, 1e3 * (clock() - start)
checked = [run(clip) for clip in clips]
times = [run(clips[i % len(clips)])[1] for i in range(int(a.runs))]
print(json.dumps({{
    "runner": "of the tests 1", "library": f"onnxruntime {{onnxruntime.__version__}}",
    "scores": [score + OFFSET for score, _ in checked], "load_ms": 1e3 * load, "first_ms": checked[0][1],
    "times_ms": times, "peak_rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}}))
"""
GETPROP = """#!/bin/sh
case $1 in
ro.product.model) echo 'Stand-in 1' ;;
ro.soc.model) echo SM0000 ;;
ro.product.cpu.abi) echo x86_64 ;;
ro.build.version.sdk) echo 34 ;;
esac
"""
DUMPSYS = """#!/bin/sh
case $1 in
battery) printf '  AC powered: false\\n  USB powered: true\\n  level: 81\\n  temperature: 294\\n' ;;
thermalservice) echo "Thermal Status: $(cat {heat})" ;;
esac
"""


def daemon() -> list[str]:
    """Returns the command that starts adbd."""
    if root := os.environ.get("ANTISPOOF_ADBD"):
        libraries = Path(root) / "usr/lib/x86_64-linux-gnu"
        loader = [
            str(libraries / "ld-linux-x86-64.so.2"),
            "--library-path",
            f"{libraries}:{libraries}/android",
        ]
        return [*loader, root + str(INSTALLED)]
    found = shutil.which("adbd") or (str(INSTALLED) if INSTALLED.exists() else None)
    if found is None:
        pytest.skip("needs adbd (Debian package of trixie and later, or $ANTISPOOF_ADBD)")
    return [found]


class Phone:
    """A daemon that can be started and killed, and the folder of its stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heat = folder / "heat"
        self.heat.write_text("0")
        (folder / "bin").mkdir()
        self.add("getprop", GETPROP)
        self.add("dumpsys", DUMPSYS.format(heat=self.heat))
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        self.process = subprocess.Popen(
            daemon(),
            env=os.environ | {"PATH": path, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while "connected" not in self.connect():
            assert time.monotonic() < deadline, "adbd does not answer"
            time.sleep(0.1)

    def add(self, name: str, text: str) -> None:
        """Puts a stand-in on the daemon's path."""
        program = self.folder / "bin" / name
        program.write_text(text)
        program.chmod(0o755)

    def connect(self) -> str:
        done = subprocess.run(["adb", "connect", SERIAL], capture_output=True, text=True, check=False)
        return "" if "failed" in done.stdout else done.stdout

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        subprocess.run(["adb", "disconnect", SERIAL], capture_output=True, check=False)


def write_runner(folder: Path, text: str = RUNNER, offset: float = 0.0) -> Path:
    path = folder / "runner"
    path.write_text(text.replace("OFFSET", str(offset)))
    return path
