"""Builds the command lines that run a model file on an iPhone, and reads what ``xcrun`` prints.

None of this has run on a Mac or a phone yet: the command lines follow the documentation of ``devicectl``
(Xcode 15 and later), and the parsers were tested on texts made by hand.

The runner is an app that takes the arguments of `benchmarks.devices.runs`, with the files in its Documents
folder, and prints its answer on one line after ``ANTISPOOF-RESULT``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antispoof.errors import UserError, one_line
from antispoof.manifest import describe_file
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

MARK = "ANTISPOOF-RESULT"
THERMAL = re.compile(r"^ANTISPOOF-THERMAL (nominal|fair|serious|critical)\s*$", re.MULTILINE)
THERMAL_STATES = ("nominal", "fair", "serious", "critical")  # of ProcessInfo.thermalState
SECONDS = 600.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How a file is run: by which app, on which phone (None: the only one), ``blocks`` of ``runs``."""

    app: Path
    bundle: str
    serial: str | None
    threads: int
    runs: int
    blocks: int


@dataclass(frozen=True)
class Phone:
    """A phone that is paired with this Mac."""

    identifier: str
    name: str
    model: str
    product: str
    os_version: str


def list_command(output: Path) -> list[str]:
    """Returns the command that writes the list of devices to a JSON file."""
    return ["xcrun", "devicectl", "list", "devices", "--json-output", str(output)]


def install_command(phone: str, app: Path) -> list[str]:
    """Returns the command that installs the runner."""
    return ["xcrun", "devicectl", "device", "install", "app", "--device", phone, str(app)]


def copy_command(phone: str, bundle: str, source: Path) -> list[str]:
    """Returns the command that copies a file or package into the runner's Documents folder."""
    return [
        *("xcrun", "devicectl", "device", "copy", "to", "--device", phone),
        *("--domain-type", "appDataContainer", "--domain-identifier", bundle),
        *("--source", str(source), "--destination", f"Documents/{source.name}"),
    ]


def launch_command(phone: str, bundle: str, arguments: Sequence[str]) -> list[str]:
    """Returns the command that runs the runner and shows what it prints until it ends."""
    return [
        *("xcrun", "devicectl", "device", "process", "launch", "--console", "--terminate-existing"),
        *("--device", phone, bundle, *arguments),
    ]


def parse_phones(text: str) -> list[Phone]:
    """Returns the phones in what ``devicectl list devices --json-output`` wrote.

    Raises:
        UserError: It is not such a file.
    """
    try:
        return [
            Phone(
                device["identifier"],
                device["deviceProperties"]["name"],
                device["hardwareProperties"]["marketingName"],
                device["hardwareProperties"]["productType"],
                device["deviceProperties"]["osVersionNumber"],
            )
            for device in json.loads(text)["result"]["devices"]
            if device.get("connectionProperties", {}).get("pairingState") == "paired"
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError("devicectl's list of devices is not in the form that Xcode 15 and 16 write") from None


def choose_phone(phones: Sequence[Phone], wanted: str | None) -> Phone:
    """Returns the one phone there is, or that of an identifier or name.

    Raises:
        UserError: There is no such phone, or more than one.
    """
    found = [phone for phone in phones if wanted in (None, phone.identifier, phone.name)]
    if len(found) != 1:
        known = ", ".join(phone.name for phone in phones) or "none"
        raise UserError(f"one paired phone is needed; there are: {known} (choose with --serial)")
    return found[0]


def parse_console(text: str, clips: int, runs: int) -> Answer:
    """Returns the runner's answer from what it printed among other things.

    Raises:
        UserError: There is none.
    """
    lines = [line.partition(MARK)[2] for line in text.splitlines() if MARK in line]
    if len(lines) != 1:
        raise UserError(f"the app printed {len(lines)} results instead of one: {one_line(text)[-200:]}")
    return parse_answer(lines[0], clips, runs)


def parse_thermal(text: str) -> int | None:
    """Returns the last thermal state that the app printed, 0 to 3; None where it printed none."""
    states = THERMAL.findall(text)
    return THERMAL_STATES.index(states[-1]) if states else None


def run_xcrun(command: Sequence[str], seconds: float = SECONDS) -> str:
    """Runs a command and returns what it prints.

    Raises:
        UserError: There is no Xcode, the command failed, or it took too long.
    """
    if shutil.which(command[0]) is None:
        raise UserError(
            "xcrun is not here: measuring on an iPhone takes a Mac with Xcode (--dry-run shows how)"
        )
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"no answer from the phone within {seconds:g} s; is it unlocked?") from None
    if done.returncode:
        raise UserError(f"{' '.join(command[:5])} failed: {one_line(done.stderr + done.stdout)[-300:]}")
    return done.stdout


def commands(
    phone: str, app: Path, bundle: str, files: Sequence[Path], arguments: Sequence[str]
) -> list[list[str]]:
    """Returns the command lines of a measurement: install, copy, launch."""
    return [
        install_command(phone, app),
        *(copy_command(phone, bundle, file) for file in files),
        launch_command(phone, bundle, arguments),
    ]


def measure(artifact: Path, plan: Plan, say: Callable[[str], None]) -> Row:
    """Returns the figures of a file on a phone, checked against the golden scores before any timing."""
    with tempfile.TemporaryDirectory() as here:
        listed = Path(here) / "devices.json"
        run_xcrun(list_command(listed))
        phone = choose_phone(parse_phones(listed.read_text(encoding="utf-8")), plan.serial)
        golden, clips = golden_for(artifact, Path(here))

        def launch(count: int) -> list[list[str]]:
            arguments = runner_arguments(artifact.name, clips.name, golden, plan.threads, count)
            return commands(phone.identifier, plan.app, plan.bundle, (artifact, clips), arguments)

        *prepare, check = launch(0)
        for command in prepare:
            say(" ".join(command[1:5]))
            run_xcrun(command)
        difference = check_scores(parse_console(run_xcrun(check), golden.clips, 0), golden)
        done: list[Block] = []
        while len(done) < plan.blocks and not is_steady(done):
            done.append(_block(run_xcrun(launch(plan.runs)[-1]), golden, plan.runs))
            say(f"block {len(done)} done")
    return {
        "label": artifact.stem,
        "file": artifact.name,
        "bytes": describe_file(artifact).bytes,
        "sha256": describe_file(artifact).sha256,
        "golden": {"clips": golden.clips, "max_difference": difference, "tolerance": golden.tolerance},
        "device": {"model": phone.model, "product": phone.product, "ios": phone.os_version},
        "threads": plan.threads,
        **figures(done),
    }


def _block(printed: str, golden: Golden, runs: int) -> Block:
    heat = parse_thermal(printed)
    return Block(parse_console(printed, golden.clips, runs), heat, heat)


def show(command: Sequence[str]) -> None:
    """Prints a command line to stdout as one would type it."""
    print(subprocess.list2cmdline(command), file=sys.stdout)
