"""The README's tables are those of the committed results."""

from __future__ import annotations

from pathlib import Path

import pytest

from antispoof.errors import CheckFailed, UserError
from benchmarks import report


def test_the_readme_agrees_with_the_results() -> None:
    assert report.main(["--check"]) == 0


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "REPOSITORY", tmp_path)
    return tmp_path


def test_an_edited_table_is_found_and_mended(repository: Path) -> None:
    mark = "<!-- results: latency-aasist-l-onnx -->\n"
    readme = repository / "README.md"
    readme.write_text(f"Before.\n{mark}| by hand | 1 ms |\n<!-- end -->\nAfter.\n")
    with pytest.raises(CheckFailed, match=r"report\.py"):
        report.main(["--check"])
    assert "by hand" in readme.read_text()
    assert report.main([]) == 0
    text = readme.read_text()
    assert "by hand" not in text
    assert text.startswith(f"Before.\n{mark}| file |")
    assert text.endswith("<!-- end -->\nAfter.\n")
    assert report.main(["--check"]) == 0


def test_a_table_without_results_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", repository)
    (repository / "README.md").write_text("<!-- results: nothing -->\n<!-- end -->\n")
    with pytest.raises(UserError, match="nothing"):
        report.main([])
    (repository / "nothing.json").write_text('{"kind": "poem"}')
    with pytest.raises(UserError, match="poem"):
        report.main([])
