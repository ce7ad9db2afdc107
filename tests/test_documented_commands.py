"""What the documents tell people to run is what the commands take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import REPOSITORY, documented_commands, parsed
from tests.test_architecture import PACKAGES, SOURCES
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


def test_commands_are_found_where_readers_find_them(tmp_path: Path) -> None:
    assert len(TOLD[REPOSITORY / "README.md"]) > 10
    page = tmp_path / "page.md"
    page.write_text(
        "python a.py FILE [--b 1] \\\n    --c 'two words'  # why\n\n    python d.py > e\npython -m f\n"
    )
    assert documented_commands(page) == [["a.py", "FILE", "--b", "1", "--c", "two words"], ["d.py"]]
