"""Finds the program that runs ONNX files on an Android device, and ONNX Runtime for it.

Both come from the demo app's tools: its scripts compile the one and fetch the other, into the same cache.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from antispoof.errors import UserError, one_line
from benchmarks.devices.adb import Device

GET_RUNNER = Path(__file__).resolve().parents[2] / "android_demo" / "scripts" / "get-runner.sh"
BY_HAND = "name a runner with --runner, and what it needs with --push"


def runner_for(device: Device) -> tuple[Path, Path]:
    """Returns the runner and the library for the processor of a device.

    Where they are missing they are made and fetched; what the scripts say meanwhile goes to stderr.

    Raises:
        UserError: They cannot be had here, or there are none for this device.
    """
    abi = device.read("getprop ro.product.cpu.abi")
    if abi is None:
        raise UserError(f"{device.serial} does not say which processor it has; {BY_HAND}")
    if sys.platform != "linux" or not GET_RUNNER.is_file():
        raise UserError(f"the runner is compiled in a checkout of this project, on Linux; else {BY_HAND}")
    done = subprocess.run(
        [str(GET_RUNNER), abi], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
    )
    said = done.stdout.splitlines()
    if done.returncode or len(said) != 2:
        why = one_line(done.stdout)[-300:] or f"{GET_RUNNER.name} failed with exit code {done.returncode}"
        raise UserError(f"no runner for {abi}: {why}; {BY_HAND}")
    return Path(said[0]), Path(said[1])
