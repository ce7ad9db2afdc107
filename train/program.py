"""Runs programs that are not this project's."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from antispoof.errors import UserError, one_line

LIMIT_S = 120.0


def find_program(command: str) -> None:
    """Refuses a command whose program is not there.

    Raises:
        UserError: It is not, or the command's quotes are not closed.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"{command!r} is no command: {one_line(error)}") from error
    if not words or shutil.which(words[0]) is None:
        raise UserError(f"{words[0] if words else command!r} cannot be run: no such program")


def write_by_program(words: Sequence[str | Path], made: Path) -> None:
    """Runs a command that is to write the file ``made``.

    Raises:
        UserError: The program is missing, fails, takes over two minutes or writes nothing.
    """
    output_of(words)
    if not made.exists():
        raise UserError(f"{words[0]} wrote nothing")


def output_of(words: Sequence[str | Path]) -> str:
    """Returns what a command says on its standard output.

    Raises:
        UserError: The program is missing, fails or takes over two minutes.
    """
    name = words[0]
    try:
        done = subprocess.run(words, capture_output=True, timeout=LIMIT_S, check=False)
    except OSError as error:
        raise UserError(f"{name} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise UserError(f"{name} took over {LIMIT_S:.0f} s") from None
    if done.returncode:
        said = one_line(done.stderr.decode(errors="replace"))[-160:] or f"exit code {done.returncode}"
        raise UserError(f"{name} failed: {said}")
    return done.stdout.decode(errors="replace")
