"""Commands that files of the project hold: those that make would run, and those that readers are told to."""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def run_make(rules: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs make with a file of rules from the repository's root, as if no other make ran the tests."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", "-f", rules, f"PYTHON={sys.executable}", *words]
    return subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False)


def commands_of(dry_run: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """Returns the commands of ``make -n``, each without the interpreter and without what follows ``||``."""
    assert dry_run.returncode == 0, dry_run.stderr
    lines = dry_run.stdout.replace("\\\n", " ").splitlines()
    assert lines
    return [shlex.split(line.partition("||")[0])[1:] for line in lines]


def documented_commands(document: Path) -> list[list[str]]:
    """Returns the commands of the project in a Markdown file or a module's docstring, as `commands_of` does.

    Optional words are taken in; what follows a pipe, a redirection or a hash is left out.
    """
    text = document.read_text(encoding="utf-8")
    if document.suffix == ".py":
        text = ast.get_docstring(ast.parse(text), clean=False) or ""
    commands = re.findall(r"^ *python (?!-)(\S+\.py\b[^|>#\n]*)", text.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(re.sub(r"[\[\]]|\.\.\.", " ", command)) for command in commands]


class Parsed(BaseException):
    """Carries what a command understood, instead of its being run, past the handlers of its errors."""


def parsed(script: str, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Returns what a command of the project understands of flags."""

    def stopping(parse: Callable[..., argparse.Namespace]) -> Callable[..., None]:
        def stop(parser: argparse.ArgumentParser, argv: list[str]) -> None:
            raise Parsed(parse(parser, argv))

        return stop

    with monkeypatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, stopping(getattr(argparse.ArgumentParser, name)))
        with pytest.raises(Parsed) as caught:
            import_module(script.removesuffix(".py").replace("/", ".")).main(flags)
    args: argparse.Namespace = caught.value.args[0]
    return args
