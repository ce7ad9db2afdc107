"""No damaged file of any format gets past in a traceback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from antispoof.errors import UserError
from export.lint import lint, main
from runtimes.graphs import READERS
from tests.lint.small_files import save, tflite_file, value, weights


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory, package: Callable[[str], Path]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("victims")
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["x", "shape"], ["same"]),
        helper.make_node("Conv", ["same", "w"], ["c"]),
        helper.make_node("Selu", ["c"], ["y"]),
    ]
    return {
        "onnx": save(
            folder / "m.onnx", nodes, [value("x", [1, 1, 32])], [value("y", [1, 2, 30])], w=weights(2, 1, 3)
        ),
        "tflite": tflite_file(folder / "m.tflite", "ADD", "EQUAL", "MUL"),
        "coreml": package("FLOAT16"),
    }


@pytest.mark.parametrize("format", READERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_found_or_does_no_harm(
    format: str, data: st.DataObject, victims: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / victims[format].name
    if victims[format].is_dir():
        shutil.copytree(victims[format], path, dirs_exist_ok=True)
        file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    else:
        shutil.copy(victims[format], path)
        file = path
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content))
    try:
        assert main([str(path)]) == 0
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - reading it is as good an outcome


def test_a_file_that_kills_litert_is_one_line(victims: dict[str, Path], tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(victims["tflite"].read_bytes())
    table = schema.Model.GetRootAs(content, 0).Subgraphs(0).Operators(0)._tab
    inputs = table.Vector(table.Offset(6))  # where an operator's inputs are
    content[inputs : inputs + 4] = b"\xff" * 4  # an addition without its first number
    path = tmp_path / "m.tflite"
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="LiteRT crashes on it"):
        lint(path)
