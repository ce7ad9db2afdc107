"""What the documents tell people to run is what the commands take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import REPOSITORY, documented_commands, parsed
from tests.test_architecture import PACKAGES, SOURCES
from tests.test_bundled_figures import product
from tests.test_console import NOT_FOR_HANDS

DOCUMENTS = [
    *SOURCES,
    *REPOSITORY.glob("*.md"),
    *REPOSITORY.glob("*_demo/*.md"),
    *(page for package in PACKAGES for page in (REPOSITORY / package).rglob("*.md")),
]
TOLD = {path: commands for path in sorted(DOCUMENTS) if (commands := documented_commands(path))}


@pytest.mark.parametrize("document", TOLD, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_command_of_a_document_is_one_that_its_program_takes(
    document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script, *flags in TOLD[document]:
        assert (REPOSITORY / script).is_file(), script
        if script.removesuffix(".py").replace("/", ".") not in NOT_FOR_HANDS:
            parsed(script, flags, monkeypatch)


def test_the_readme_can_be_followed_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path | None] = [Path("out/fscnn.onnx")]  # by make onnx
    for script, *flags in TOLD[REPOSITORY / "README.md"]:
        args = parsed(script, flags, monkeypatch)
        if script.startswith("export/to_"):
            made.append(product(script, args))  # which refuses to replace what is there
        elif script == "quantize/onnx_int8.py":
            assert args.calibration == "all"  # the list it takes otherwise is of this project's recordings
            made.append(product(script, args))
    assert len(made) == len(set(made)) > 5


def test_commands_are_found_where_readers_find_them(tmp_path: Path) -> None:
    assert len(TOLD[REPOSITORY / "README.md"]) > 10
    page = tmp_path / "page.md"
    page.write_text(
        "python a.py FILE [--b 1] \\\n    --c 'two words'  # why\n\n    python d.py > e\npython -m f\n"
    )
    assert documented_commands(page) == [["a.py", "FILE", "--b", "1", "--c", "two words"], ["d.py"]]
