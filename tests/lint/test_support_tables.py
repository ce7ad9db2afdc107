"""The tables of what targets take: sourced, about operations that exist, and true where it can be tried."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from antispoof.errors import UserError
from export.lint import lint
from export.placement import place
from export.targets import REWRITES, SUPPORT, load_target, target_names
from runtimes import litert
from runtimes.graphs import READERS, read_graph
from runtimes.mlpackage import import_coremltools
from tests.lint.small_files import found, tflite_file


def known_kinds(format: str) -> set[str]:
    """Every operation that a format has, as its own library lists them."""
    if format == "onnx":
        # Kernels that ONNX Runtime kept from before the standard.
        own = {"Affine", "Crop", "DynamicSlice", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"}
        return (
            {row.name for row in onnx.defs.get_all_schemas_with_history()}
            | own
            | {"SimplifiedLayerNormalization"}
        )
    if format == "tflite":
        from ai_edge_litert import schema_py_generated

        return set(vars(schema_py_generated.BuiltinOperator))
    pytest.importorskip("coremltools")
    import_coremltools()
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    return set(SSAOpRegistry.core_ops)


def _has(name: str, format: str) -> bool:
    try:
        return bool(load_target(name, format))
    except UserError:
        return False


@pytest.mark.parametrize("name", target_names())
def test_a_table_says_where_it_is_from_and_names_what_exists(name: str) -> None:
    taken = [format for format in READERS if format in (SUPPORT / f"{name}.toml").read_text()]
    tables = [load_target(name, format) for format in taken if _has(name, format)]
    assert tables
    for format, table in zip([f for f in taken if _has(name, f)], tables, strict=True):
        assert table.sources
        assert table.read.year >= 2026
        assert set(table.only) <= table.operations | {"GatherND"}
        assert {kind for kind in table.operations if ":" not in kind} <= known_kinds(format)
        rules = {key for row in table.only.values() for key in row}
        assert rules <= {"ranks", "constant", "inputs", "kernel", "axis", "attributes"}


def test_advice_is_for_operations_that_exist_once_each() -> None:
    import tomllib

    rows = tomllib.loads((SUPPORT / f"{REWRITES}.toml").read_text())["rewrite"]
    kinds = [kind for row in rows for kind in row["kinds"]]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) <= set().union(*map(known_kinds, READERS))


@pytest.mark.parametrize(
    "kinds",
    [("ADD", "ELU"), ("ADD", "ELU", "EQUAL", "MUL", "TANH"), ("EQUAL", "EXP", "ADD", "SIGN", "ADD", "ABS")],
)
def test_the_table_of_xnnpack_says_what_xnnpack_does(kinds: tuple[str, ...], tmp_path: Path) -> None:
    path = tflite_file(tmp_path / "m.tflite", *kinds)
    placement = place(read_graph(path), load_target("xnnpack", "tflite"))
    assert litert.partitions(path) == litert.Partitions(placement.partitions, len(placement.refused))
    report = lint(path)
    assert report.partitions == placement.partitions
    assert not found(report, "partitions")
