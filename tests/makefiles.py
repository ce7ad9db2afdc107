"""Runs the rules of the project's makefiles, and reads the commands that they would run."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
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


class Parsed(Exception):
    """Carries what a command understood, instead of its being run."""


def parsed(script: str, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Returns what a command of the project understands of flags."""
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, argv: list[str]) -> None:
        raise Parsed(parse(parser, argv))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(Parsed) as caught:
            import_module(script.removesuffix(".py").replace("/", ".")).main(flags)
    args: argparse.Namespace = caught.value.args[0]
    return args
