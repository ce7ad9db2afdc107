"""A package is read as coremltools reads it and run in little memory; a damaged one ends in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antispoof.errors import UserError
from runtimes.ml_program import schema
from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.package import read_package
from runtimes.ml_program.wire import decode
from runtimes.mlpackage import import_coremltools
from tests.ml_program.programs import save

pytest.importorskip("coremltools")

FLOAT32, INT8 = (
    next(key for key, row in schema.DATA_TYPES.items() if row[0] == name) for name in ("float32", "int8")
)


@pytest.fixture(scope="module")
def package(mb: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small package with a weight file."""
    weight = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)

    def build(x: Any) -> Any:
        return mb.relu(x=mb.linear(x=mb.exp(x=x), weight=weight, bias=np.ones(8, np.float32)), name="y")

    return save(mb, build, [mb.TensorSpec((1, 8))], tmp_path_factory.mktemp("small") / "small.mlpackage")


def test_a_package_is_read_as_coremltools_reads_it(package: Path) -> None:
    import_coremltools()
    from coremltools.proto import Model_pb2

    content = (package / "Data" / "com.apple.CoreML" / "model.mlmodel").read_bytes()
    theirs = Model_pb2.Model.FromString(content)
    ours = decode(memoryview(content), schema.MODEL)
    assert ours["specificationVersion"] == theirs.specificationVersion
    (block,) = theirs.mlProgram.functions["main"].block_specializations.values()
    (mine,) = ours["mlProgram"]["functions"]["main"]["block_specializations"].values()
    assert [op["type"] for op in mine["operations"]] == [op.type for op in block.operations]
    assert mine["outputs"] == list(block.outputs)


def test_values_that_nothing_needs_any_more_are_let_go(package: Path) -> None:
    evaluator = Evaluator(read_package(package))
    values = evaluator._start({"x": np.zeros((1, 8), np.float32)})
    most = 0
    for _ in evaluator._steps(values):
        most = max(most, sum(value is not None for value in values))
    assert most <= 2


Break = Callable[[Path], object]


def manifest_of(package: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((package / "Manifest.json").read_text())
    return facts


def point_model_at(package: Path, where: str) -> None:
    facts = manifest_of(package)
    facts["itemInfoEntries"][facts["rootModelIdentifier"]]["path"] = where
    (package / "Manifest.json").write_text(json.dumps(facts))


def edit_model(package: Path, edit: Callable[[Any], object]) -> None:
    from coremltools.proto import Model_pb2

    file = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = Model_pb2.Model.FromString(file.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    edit(block.operations)
    file.write_bytes(model.SerializeToString())


def blob_of(operations: Any) -> Any:
    constants = [op.attributes["val"] for op in operations if op.type == "const"]
    return next(value for value in constants if value.HasField("blobFileValue"))


def name_of(operations: Any) -> Any:
    return operations[-1].attributes["name"]


def number_beyond_its_type(operations: Any) -> None:
    constant = name_of(operations)
    constant.type.tensorType.dataType = INT8
    constant.immediateValue.tensor.ints.values.append(300)


def weights_of(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def model_of(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "model.mlmodel"


def link_outside(package: Path) -> None:
    outside = package.parent / "outside.bin"
    shutil.move(weights_of(package), outside)
    weights_of(package).symlink_to(outside)


def file_for_a_package(package: Path) -> None:
    shutil.rmtree(package)
    package.write_text("hello")


def link_to_itself(package: Path) -> None:
    weights_of(package).unlink()
    weights_of(package).symlink_to(weights_of(package))


BROKEN: dict[str, tuple[Break, str]] = {
    "no manifest": (lambda p: (p / "Manifest.json").unlink(), "'Manifest.json' is missing"),
    "no JSON": (lambda p: (p / "Manifest.json").write_text("{"), "does not say where the model lies"),
    "deep JSON": (lambda p: (p / "Manifest.json").write_text("[" * 100_000), "does not say where"),
    "no root": (lambda p: (p / "Manifest.json").write_text("{}"), "does not say where the model lies"),
    "path upwards": (lambda p: point_model_at(p, "../../secret"), "outside itself"),
    "absolute path": (lambda p: point_model_at(p, "/etc/passwd"), "outside itself"),
    "null character": (lambda p: point_model_at(p, "a\0b"), "outside itself"),
    "path to nowhere": (lambda p: point_model_at(p, "com.apple.CoreML/other"), "is missing"),
    "no model": (lambda p: model_of(p).unlink(), "is missing"),
    "empty model": (lambda p: model_of(p).write_bytes(b""), "not an ML Program"),
    "cut model": (lambda p: cut(model_of(p), 200), "damaged"),
    "text for a model": (lambda p: model_of(p).write_text("hello" * 100), "no Core ML model"),
    "no weights": (lambda p: weights_of(p).unlink(), "weight.bin' is missing"),
    "linked weights": (link_outside, "outside itself"),
    "weights linked to themselves": (link_to_itself, "is missing"),
    "path too long": (lambda p: point_model_at(p, "a" * 5000), "is missing"),
    "cut weights": (lambda p: cut(weights_of(p), 200), "cut off"),
    "empty weights": (lambda p: weights_of(p).write_bytes(b""), "cut off"),
    "weights beyond the file": (
        lambda p: edit_model(p, lambda ops: setattr(blob_of(ops).blobFileValue, "offset", 1 << 60)),
        "outside the file",
    ),
    "weights inside another": (
        lambda p: edit_model(p, lambda ops: setattr(blob_of(ops).blobFileValue, "offset", 160)),
        "no weight begins there",
    ),
    "weights elsewhere": (
        lambda p: edit_model(
            p, lambda ops: setattr(blob_of(ops).blobFileValue, "fileName", "@model_path/../../../secret")
        ),
        "outside itself",
    ),
    "weights of another shape": (
        lambda p: edit_model(
            p, lambda ops: setattr(blob_of(ops).type.tensorType.dimensions[0].constant, "size", 9)
        ),
        "do not make",
    ),
    "weights of another type": (
        lambda p: edit_model(p, lambda ops: setattr(blob_of(ops).type.tensorType, "dataType", 10)),
        "holds float32, not float16",
    ),
    "text for a number": (
        lambda p: edit_model(p, lambda ops: setattr(name_of(ops).type.tensorType, "dataType", FLOAT32)),
        "of float32 has text",
    ),
    "two texts for one": (
        lambda p: edit_model(p, lambda ops: name_of(ops).immediateValue.tensor.strings.values.append("z")),
        r"2 elements for the shape \(\)",
    ),
    "a number beyond its type": (
        lambda p: edit_model(p, number_beyond_its_type),
        "numbers that are not of int8",
    ),
    "unknown operation": (
        lambda p: edit_model(p, lambda ops: setattr(ops[-1], "type", "relu7")),
        "'relu7' .* is not supported",
    ),
    "unknown argument": (
        lambda p: edit_model(p, lambda ops: ops[-1].inputs["q"].CopyFrom(ops[-1].inputs["x"])),
        "relu 'y': the argument 'q'",
    ),
    "missing argument": (
        lambda p: edit_model(p, lambda ops: ops[-1].inputs.clear()),
        "relu 'y': the argument 'x' is missing",
    ),
    "undefined value": (
        lambda p: edit_model(p, lambda ops: setattr(ops[-1].inputs["x"].arguments[0], "name", "ghost")),
        "nothing before it computes 'ghost'",
    ),
    "a file for a package": (
        file_for_a_package,
        "no Core ML package",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_package_gets_one_line(how: str, package: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mlpackage"
    shutil.copytree(package, broken)
    damage, message = BROKEN[how]
    damage(broken)
    with pytest.raises(UserError, match=message) as error:
        Evaluator(read_package(broken))
    assert "\n" not in str(error.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), value=st.integers(0, 255), length=st.integers(1, 4), keep=st.floats(0.3, 1.5))
def test_any_damage_to_a_program_is_survived(
    place: float, value: int, length: int, keep: float, package: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.mlpackage"
    if not damaged.exists():
        shutil.copytree(package, damaged)
    content = bytearray(model_of(package).read_bytes())
    start = int(place * (len(content) - length))
    content[start : start + length] = bytes([value]) * length
    model_of(damaged).write_bytes(content[: int(keep * len(content))])
    try:
        evaluator = Evaluator(read_package(damaged))
        evaluator.run({name: np.zeros(kind.shape, np.float32) for name, kind in evaluator.program.inputs})
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - surviving is as good an outcome
