"""Talks to an Android device through ``adb``; whatever goes wrong ends in one sentence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from antispoof.errors import UserError, one_line

ANSWER_SECONDS = 30.0
PUSH_SECONDS = 600.0
READY = "device"  # what adb calls a device that takes commands
HINTS = {
    "unauthorized": "unlock it and allow USB debugging from this computer",
    "offline": "pull the cable, put it back, and try again",
    "no permissions": "this user may not open it; see adb's udev rules",
}


class DeviceLost(UserError):
    """The device does not answer any more."""


@dataclass(frozen=True)
class Answer:
    """What a command on the device printed and returned."""

    code: int
    out: str
    err: str


def parse_devices(text: str) -> dict[str, str]:
    """Returns the states of the devices that ``adb devices`` lists, by serial number."""
    rows = re.findall(r"^(\S+)[ \t]+(device|offline|unauthorized|no permissions|\w+)\b", text, re.MULTILINE)
    return {serial: state for serial, state in rows if serial not in ("List", "*")}


def find_device(serial: str | None) -> Device:
    """Returns the one device that is connected, or that of a serial number (or of $ANDROID_SERIAL).

    Raises:
        UserError: adb is missing, there is no such device or more than one, or it takes no commands.
    """
    serial = serial or os.environ.get("ANDROID_SERIAL")
    states = parse_devices(_call(["devices"], ANSWER_SECONDS).out)
    if serial is None:
        if len(states) != 1:
            found = ", ".join(states) or "none"
            raise UserError(f"one device is needed; connected: {found} (choose with --serial)")
        serial = next(iter(states))
    state = states.get(serial)
    if state is None:
        raise UserError(f"no device {serial!r}; connected: {', '.join(states) or 'none'}")
    if state != READY:
        raise UserError(f"{serial} is {state}: {HINTS.get(state, 'wait until it has started')}")
    return Device(serial)


@dataclass(frozen=True)
class Device:
    """A device that takes commands."""

    serial: str

    def shell(self, command: str, seconds: float = ANSWER_SECONDS) -> Answer:
        """Runs a command in the device's shell.

        Raises:
            DeviceLost: The connection broke, or there was no answer in time.
        """
        return self._do(["shell", "-T", command], seconds)

    def read(self, command: str) -> str | None:
        """Returns what a command prints; None where it fails, as where a device has no such thing."""
        answer = self.shell(f"{command} 2>/dev/null")
        return answer.out.strip() or None if answer.code == 0 else None

    def push(self, file: Path, target: str) -> None:
        """Copies a file or folder to the device.

        Raises:
            UserError: The device is full, or does not take it.
        """
        self._copied(self._do(["push", str(file), target], PUSH_SECONDS), f"{file.name} to the device")

    def pull(self, source: str, file: Path) -> None:
        """Copies a file from the device."""
        self._copied(self._do(["pull", source, str(file)], PUSH_SECONDS), "the results from the device")

    def _copied(self, answer: Answer, what: str) -> None:
        if answer.code == 0:
            return
        said = one_line(answer.out + " " + answer.err)
        if "No space left" in said:
            raise UserError(f"could not copy {what}: it is full; free some of its storage")
        raise UserError(f"could not copy {what}: {said[-200:]}")

    def _do(self, arguments: list[str], seconds: float) -> Answer:
        answer = _call(["-s", self.serial, *arguments], seconds)
        # A broken connection has the exit code of a failed command; only the device's state tells.
        if answer.code != 0 and not self.is_there():
            raise DeviceLost(f"{self.serial} went away during 'adb {arguments[0]}': is the cable in?")
        return answer

    def is_there(self) -> bool:
        """Tells whether the device takes commands."""
        answer = _call(["-s", self.serial, "get-state"], ANSWER_SECONDS)
        return answer.code == 0 and answer.out.strip() == READY


def _call(arguments: list[str], seconds: float) -> Answer:
    program = shutil.which("adb")
    if program is None:
        raise UserError("adb is not installed (Debian: apt-get install adb; else Android's platform tools)")
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceLost(f"no answer to 'adb {' '.join(arguments)[:80]}' within {seconds:g} s") from None
    return Answer(done.returncode, done.stdout, done.stderr)
