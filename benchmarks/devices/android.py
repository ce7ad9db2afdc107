"""Runs a model file on an Android device through adb, and records the state that the device was in."""

from __future__ import annotations

import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antispoof.errors import UserError, one_line
from antispoof.manifest import describe_file, manifest_path
from benchmarks.devices.adb import Device, DeviceLost
from benchmarks.devices.runs import (
    Answer,
    Block,
    check_scores,
    figures,
    golden_for,
    is_steady,
    parse_answer,
    runner_arguments,
)
from runtimes.golden import Golden

PROPERTIES = {
    "manufacturer": "ro.product.manufacturer",
    "model": "ro.product.model",
    "chip": "ro.soc.model",
    "android": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "abi": "ro.product.cpu.abi",
}
FREQUENCIES = "grep -H . /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq"
GOVERNORS = "cat /sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
LOOK_SECONDS = 5.0
TIMED_OUT = 124  # the exit code of timeout(1)

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How a file is run.

    Attributes:
        folder: Where on the device a folder of this run's own is made.
        runner: The program that runs it.
        extra: Further files that the runner needs, such as a library.
        threads: Of one run.
        cores: ``big``, ``little``, ``all``, or a list such as ``4-7``.
        runs: In one block.
        blocks: The most blocks there are.
        seconds: After which a block is hung.
        cool_seconds: How long to wait for a hot device.
    """

    folder: str
    runner: Path
    extra: Sequence[Path] = ()
    threads: int = 1
    cores: str = "big"
    runs: int = 50
    blocks: int = 12
    seconds: float = 600.0
    cool_seconds: float = 600.0


def describe_device(device: Device) -> Row:
    """Returns what the device is; what it does not tell is None."""
    facts: Row = {name: device.read(f"getprop {key}") for name, key in PROPERTIES.items()}
    features = device.read("grep -m1 -iE '^(Features|flags)' /proc/cpuinfo") or ""
    return facts | {
        "cpu_features": features.partition(":")[2].split(),
        "max_khz": max_frequencies(device.read(FREQUENCIES) or ""),
    }


def state_of(device: Device) -> Row:
    """Returns what changes from one minute to the next: governor, battery, temperature, thermal status."""
    battery = parse_battery(device.read("dumpsys battery") or "")
    governors = (device.read(GOVERNORS) or "").split()
    return battery | {
        "thermal_status": thermal_status(device),
        "governors": sorted(set(governors)),
        "screen": device.read("dumpsys power | grep -m1 -o 'mWakefulness=[A-Za-z]*'"),
        "aeroplane_mode": device.read("settings get global airplane_mode_on"),
    }


def parse_battery(text: str) -> Row:
    """Returns level in per cent, temperature in Celsius and charging, of ``dumpsys battery``."""
    level = re.search(r"^\s*level: (\d+)", text, re.MULTILINE)
    tenths = re.search(r"^\s*temperature: (-?\d+)", text, re.MULTILINE)
    powered = re.findall(r"^\s*\w+ powered: (true|false)", text, re.MULTILINE)
    return {
        "battery_percent": int(level[1]) if level else None,
        "battery_celsius": int(tenths[1]) / 10 if tenths else None,
        "charging": "true" in powered if powered else None,
    }


def thermal_status(device: Device) -> int | None:
    """Returns 0 where the device is cool, up to 6 where it is about to switch off; None where unknown."""
    found = re.search(r"Thermal Status: (\d+)", device.read("dumpsys thermalservice") or "")
    return int(found[1]) if found else None


def max_frequencies(text: str) -> dict[int, int]:
    """Returns the highest clock of each core in kHz, from lines ``.../cpuN/cpufreq/...:KHZ``."""
    return {int(core): int(khz) for core, khz in re.findall(r"/cpu(\d+)/\S*?:(\d+)", text)}


def core_mask(cores: str, max_khz: dict[int, int]) -> int | None:
    """Returns the cores to pin to as bits; None for all of them.

    Raises:
        UserError: ``cores`` is none of the words and no list of numbers.
    """
    if cores == "all" or (cores in ("big", "little") and len(set(max_khz.values())) < 2):
        return None
    if cores in ("big", "little"):
        wanted = (max if cores == "big" else min)(max_khz.values())
        chosen = [core for core, khz in max_khz.items() if khz == wanted]
    else:
        if not re.fullmatch(r"\d{1,3}(-\d{1,3})?(,\d{1,3}(-\d{1,3})?)*", cores):
            raise UserError(f"--cores takes big, little, all or a list such as 4-7, not {cores!r}")
        spans = [span.partition("-") for span in cores.split(",")]
        chosen = [core for a, dash, b in spans for core in range(int(a), int(b if dash else a) + 1)]
    return sum(1 << core for core in set(chosen)) or None


@contextmanager
def folder_on(device: Device, parent: str, say: Callable[[str], None]) -> Iterator[str]:
    """Makes a folder on the device, and removes it and what was put there whatever happens."""
    folder = f"{parent.rstrip('/')}/antispoof-{secrets.token_hex(4)}"
    made = device.shell(f"mkdir -p {shlex.quote(folder)}")
    if made.code:
        raise UserError(f"cannot make {folder} on the device: {one_line(made.out + made.err)[:200]}")
    try:
        yield folder
    finally:
        try:
            device.shell(f"rm -rf {shlex.quote(folder)}")
        except DeviceLost:
            say(f"{folder} is left on the device, which does not answer")


def measure(device: Device, artifact: Path, plan: Plan, say: Callable[[str], None]) -> Row:
    """Returns the figures of a file on a device.

    1. push the file, its clips and the runner, and check that they arrived whole
    2. compare the scores with the golden ones
    3. run blocks until two in a row agree, waiting where the device is hot

    Raises:
        UserError: The device went away, is full or hung, or the runner failed.
        CheckFailed: The scores are wrong there, or it never was cool.
    """
    facts = describe_device(device)
    before = state_of(device)
    mask = core_mask(plan.cores, facts["max_khz"])
    with tempfile.TemporaryDirectory() as here, folder_on(device, plan.folder, say) as there:
        golden, clips = golden_for(artifact, Path(here))
        say("pushing")
        files = [artifact, manifest_path(artifact), clips, plan.runner, *plan.extra]
        push_checked(device, [file for file in files if file.exists()], there)
        run = _Run(device, plan, there, mask, golden, artifact.name, clips.name, Path(here))
        say("checking the golden scores")
        difference = check_scores(run.once(0), golden)
        blocks: list[Block] = []
        while len(blocks) < plan.blocks and not is_steady(blocks):
            cool_down(device, plan.cool_seconds, say)
            heat = thermal_status(device)
            blocks.append(Block(run.once(plan.runs), heat, thermal_status(device)))
            say(f"block {len(blocks)} done")
    return {
        "label": artifact.stem,
        "file": artifact.name,
        "bytes": describe_file(artifact).bytes,
        "sha256": describe_file(artifact).sha256,
        "pushed": {file.name: describe_file(file).sha256 for file in (plan.runner, *plan.extra)},
        "golden": {"clips": golden.clips, "max_difference": difference, "tolerance": golden.tolerance},
        "device": facts,
        "before": before,
        "after": state_of(device),
        "threads": plan.threads,
        "pinned_to": None if mask is None else f"{mask:x}",
        **figures(blocks),
    }


def push_checked(device: Device, files: Sequence[Path], folder: str) -> None:
    """Copies files to the device and compares their sha256 there, where it can compute it."""
    for file in files:
        device.push(file, f"{folder}/{file.name}")
        found = device.read(f"sha256sum {shlex.quote(f'{folder}/{file.name}')}")
        if found and not file.is_dir() and found.split()[0] != describe_file(file).sha256:
            raise UserError(f"{file.name} did not arrive whole on the device")


def cool_down(device: Device, seconds: float, say: Callable[[str], None]) -> None:
    """Waits until the device is cool, or for so long."""
    deadline = time.monotonic() + seconds
    while thermal_status(device) and time.monotonic() < deadline:
        say("the device is hot; waiting")
        time.sleep(LOOK_SECONDS)


@dataclass(frozen=True)
class _Run:
    device: Device
    plan: Plan
    folder: str
    mask: int | None
    golden: Golden
    model: str
    clips: str
    here: Path

    def once(self, runs: int) -> Answer:
        """Calls the runner, fetches what it wrote and returns it."""
        runner = f"./{self.plan.runner.name}"
        arguments = runner_arguments(self.model, self.clips, self.golden, self.plan.threads, runs)
        pin = [] if self.mask is None else ["taskset", f"{self.mask:x}"]
        call = shlex.join(["timeout", f"{self.plan.seconds:g}", *pin, runner, *arguments])
        where = f"cd {shlex.quote(self.folder)} && chmod 755 {shlex.quote(runner)}"
        answer = self.device.shell(
            f"{where} && LD_LIBRARY_PATH=. {call} > answer.json", self.plan.seconds + 30
        )
        if answer.code == TIMED_OUT:
            raise UserError(f"the runner was not done within {self.plan.seconds:g} s")
        if answer.code:
            said = one_line(answer.err + answer.out)[-300:]
            hint = "; the device is full; free some of its storage" if "No space left" in said else ""
            raise UserError(f"the runner failed with exit code {answer.code}: {said or 'no word'}{hint}")
        target = self.here / "answer.json"
        self.device.pull(f"{self.folder}/answer.json", target)
        return parse_answer(target.read_text(encoding="utf-8", errors="replace"), self.golden.clips, runs)
