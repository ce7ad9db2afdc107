"""The rules of the repository that no other check sees."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from antispoof.__main__ import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("antispoof", "train", "export", "quantize", "runtimes", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_resolve_inside_the_repository(package: str) -> None:
    (folder,) = importlib.import_module(package).__path__
    assert Path(folder).resolve() == REPOSITORY / package


def test_imports_go_down_only() -> None:
    program = "import sys; from importlinter.cli import lint_imports_command as run; sys.exit(run())"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_modules_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or text.startswith('"""'), "no module docstring"
    assert path.stem not in {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_script_finds_a_neighbour_in_place_of_a_library(package: str) -> None:
    # The folder of a script that is run by its path comes first on the path of everything that it imports.
    neighbours = {path.stem for path in (REPOSITORY / package).iterdir()} - {
        "__init__",
        "__main__",
        "__pycache__",
    }
    libraries = {module.split(".")[0] for module in packages_distributions()}
    # onnxruntime.quantization imports some of its own as if they were libraries; antispoof has no scripts.
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    own = {path.stem for path in (Path(spec.origin).parent / "transformers").glob("*.py")} - {"__init__"}
    taken = set(sys.stdlib_module_names) | libraries - set(PACKAGES)
    assert not neighbours & (taken if package == "antispoof" else taken | own)


def test_the_readme_names_every_command() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    paths = [command.module.replace(".", "/") + ".py" for command in COMMANDS.values()]
    assert not [path for path in paths if path not in readme]
