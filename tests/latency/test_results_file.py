"""A results file is whole or not there, and names no machine and no folder."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from antispoof.errors import UserError
from benchmarks.results_file import gather_conditions, read_results, write_results


def test_conditions_name_no_machine_and_no_folder() -> None:
    conditions = gather_conditions((1, 2))
    assert conditions["threads"] == [1, 2]
    assert conditions["cpu"]["cores"] >= 1
    assert {"antispoof", "torch", "numpy"} <= conditions["packages"].keys()
    text = json.dumps(conditions, allow_nan=False)
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert str(Path(__file__).parents[2]) not in text
    assert platform.node() not in text.split('"')


def test_results_are_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "results" / "a.json"
    with pytest.raises(ValueError, match="JSON"):
        write_results(path, "k", {}, [{"value": float("nan")}])
    assert not path.exists()
    write_results(path, "k", {"a": 1}, [{"b": 2}])
    assert read_results(path, "k") == {"schema": 1, "kind": "k", "conditions": {"a": 1}, "rows": [{"b": 2}]}
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match="--force"):
        write_results(path, "k", {}, [])
    write_results(path, "k", {}, [], force=True)
    with pytest.raises(UserError, match="no latency results"):
        read_results(path, "latency")
