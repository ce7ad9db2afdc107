"""Has the demo app on an Android device time the detector that is inside it, and fetches what it measured.

An app gets other cores and less of them than a program that adb starts, so its times are nearer to what users
see. The app starts on one command of adb's shell and leaves a file; `android_demo/README.md` says how.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antispoof.errors import CheckFailed, UserError, one_line
from antispoof.manifest import describe_file
from benchmarks.devices.adb import Device
from benchmarks.devices.android import describe_device, state_of
from benchmarks.devices.runs import KIND
from benchmarks.results_file import read_results

PACKAGE = "io.antispoof.demo"
FOLDER = f"/sdcard/Android/data/{PACKAGE}/files"  # where the app may write and adb may read
LOOK_SECONDS = 2.0
GONE_LOOKS = 3  # in a row without the app: before the first it may not have begun
INSTALL = (
    "python export/embed.py android FILE, make android, then adb install -r out/android/antispoof-demo.apk"
)
NEEDED = {"device", "file", "sha256", "library", "golden", "threads", "steady", "blocks", "ms"}
NEEDED |= {"load_ms", "first_run_ms", "peak_rss_mib"}
NEEDED_MS = {"p50", "p90", "least", "runs"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is run: ``blocks`` of ``runs`` with ``threads``, each within ``seconds``."""

    threads: int
    runs: int
    blocks: int
    seconds: float


def measure(device: Device, artifact: Path, plan: Plan, say: Callable[[str], None]) -> Row:
    """Returns the app's figures of a file, with the device's state around them as adb's shell sees it.

    Raises:
        UserError: The app is not installed, holds another file, or ended without a word.
        CheckFailed: The app refused: wrong golden scores, a hot phone, or a detector that it does not trust.
    """
    facts, before = describe_device(device), state_of(device)
    if before["screen"] not in (None, "mWakefulness=Awake"):
        say("the screen is off: switch it on and unlock it, or the app may be held back")
    name = f"antispoof-{secrets.token_hex(4)}"
    try:
        start(device, name, plan)
        say("the app is measuring")
        wait(device, name, plan)
        row = result(device, name)
    finally:
        tidy(device, name)
    if row["sha256"] != describe_file(artifact).sha256:
        raise UserError(f"the app holds another file ({row['file']}) than {artifact}: {INSTALL}")
    seen = {key: value for key, value in facts.items() if value}
    return row | {
        "device": row["device"] | seen,
        "before": before,
        "after": state_of(device),
        "where": "in the demo app",
    }


def start(device: Device, name: str, plan: Plan) -> None:
    """Starts the app's benchmark mode anew.

    Raises:
        UserError: It is not installed, or cannot be started.
    """
    counts = (("runs", plan.runs), ("blocks", plan.blocks), ("threads", plan.threads))
    extras = " ".join(f"--ei {key} {value}" for key, value in counts)
    answer = device.shell(f"am start -S -n {PACKAGE}/.BenchmarkActivity {extras} --es name {name}")
    said = one_line(answer.out + " " + answer.err)
    if "does not exist" in said:
        raise UserError(f"the demo app is not on the device: {INSTALL}")
    if answer.code or "Error" in said or "Exception" in said:  # older ones have no exit code for it
        raise UserError(f"the demo app cannot be started: {said[-300:]}")


def wait(device: Device, name: str, plan: Plan) -> None:
    """Returns when the app has written its result.

    Raises:
        UserError: It ended without one, or takes too long.
        CheckFailed: It refused.
    """
    deadline = time.monotonic() + plan.seconds * plan.blocks
    failed, gone = f"{FOLDER}/{name}.error.txt", 0
    while time.monotonic() < deadline:
        # The process first: one that is gone now has written all that it will.
        seen = device.shell(f"pidof {PACKAGE}; ls {FOLDER}/{name}.on-device.json {failed}").out.split()
        if failed in seen:
            raise CheckFailed(f"the app refused: {one_line(device.read(f'cat {failed}') or 'no word')[:300]}")
        if f"{FOLDER}/{name}.on-device.json" in seen:
            return
        gone = 0 if seen else gone + 1
        if gone == GONE_LOOKS:
            raise UserError("the app ended without a result; adb logcat may say why")
        time.sleep(LOOK_SECONDS)
    raise UserError(f"the app was not done within {plan.seconds * plan.blocks:g} s")


def result(device: Device, name: str) -> Row:
    """Fetches and checks what the app wrote."""
    with tempfile.TemporaryDirectory() as here:
        file = Path(here) / "the app's result"
        device.pull(f"{FOLDER}/{name}.on-device.json", file)
        rows = read_results(file, KIND)["rows"]
    row = rows[0] if len(rows) == 1 else {}
    times, device_facts = row.get("ms"), row.get("device")
    whole = row.keys() >= NEEDED and isinstance(device_facts, dict)
    if not whole or not isinstance(times, dict) or not times.keys() >= NEEDED_MS:
        raise UserError(f"the app's result is not what this version reads; install its own: {INSTALL}")
    return row


def tidy(device: Device, name: str) -> None:
    """Stops the app and removes what it wrote, as far as the device still answers."""
    if device.is_there():
        device.shell(f"am force-stop {PACKAGE}; rm -f {FOLDER}/{name}.*")
