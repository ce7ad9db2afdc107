"""The console command: every script is one of its commands, and runs however it is called."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from antispoof import __version__
from antispoof.__main__ import COMMANDS, main
from antispoof.errors import EXIT_DONE, UserError

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("train", "export", "quantize", "runtimes", "benchmarks")
NOT_FOR_HANDS = {"benchmarks.timing.worker", "benchmarks.emulated_score"}  # started by another command
MODULES = {
    f"{folder}.{path.stem}": path for folder in FOLDERS for path in sorted((REPOSITORY / folder).glob("*.py"))
}
Capture = pytest.CaptureFixture[str]


def test_every_script_is_a_command() -> None:
    guard = re.compile(r'^if __name__ == "__main__":', re.MULTILINE)
    scripts = {module for module, path in MODULES.items() if guard.search(path.read_text(encoding="utf-8"))}
    assert scripts - NOT_FOR_HANDS == {command.module for command in COMMANDS.values()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exit:
        main([name, "--help"])
    assert exit.value.code == EXIT_DONE
    shown = capsys.readouterr().out
    script = COMMANDS[name].module.rpartition(".")[2]
    assert re.match(rf"usage: {script}(\.py)? ", shown)  # not the name of whatever program called it
    first_line = (importlib.import_module(COMMANDS[name].module).__doc__ or "").splitlines()[0]
    assert " ".join(first_line.split()) in " ".join(shown.split())  # argparse may wrap it


def test_the_command_passes_its_arguments_on(tmp_path: Path, capsys: Capture) -> None:
    scores = tmp_path / "scores.txt"
    scores.write_text("a - bonafide 2.5\nb A01 spoof -1\n")
    assert main(["accuracy", str(scores), "--bootstrap", "0"]) == EXIT_DONE
    assert "1 bona fide, 1 spoof" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_bare_command_lists_the_commands(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == EXIT_DONE
    shown = capsys.readouterr().out
    assert all(
        re.search(rf"^  {name} +{re.escape(command.help)}$", shown, re.M)
        for name, command in COMMANDS.items()
    )


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == EXIT_DONE
    assert capsys.readouterr().out == f"antispoof {__version__}\n"


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("scores", "did you mean 'score'"),
        ("exportonnx", "did you mean 'export-onnx'"),
        ("-q", "--help lists them"),
    ],
)
def test_an_unknown_command_names_the_closest(wrong: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        main([wrong])


# One script stands for all: it loads no torch, so that four processes cost little. What could make the
# others differ by the way they are called is the folder that Python puts first, for which see below.
@pytest.mark.parametrize(
    "call",
    [
        [sys.executable, str(REPOSITORY / "benchmarks" / "accuracy.py")],
        [sys.executable, "-m", "benchmarks.accuracy"],
        [sys.executable, "-m", "antispoof", "accuracy"],
        [str(Path(sys.executable).with_name("antispoof")), "accuracy"],
    ],
    ids=["by path", "as a module", "python -m antispoof", "console"],
)
def test_a_script_runs_from_anywhere(call: list[str], tmp_path: Path) -> None:
    done = subprocess.run([*call, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (EXIT_DONE, "")
    assert done.stdout.startswith("usage:")


def test_an_unknown_command_is_one_line_and_exit_2(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "antispoof", "acuracy"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no command 'acuracy'; did you mean 'accuracy'?\n"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_hides_another_from_a_script_beside_it(module: str) -> None:
    # Run by path, a script finds its own folder before the standard library and what is installed.
    stem = module.rpartition(".")[2]
    assert stem == "__init__" or importlib.util.find_spec(stem) is None
