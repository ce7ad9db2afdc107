"""A Core ML package: what the command writes scores like PyTorch, and any damage is found and named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antispoof.errors import CheckFailed, UserError
from antispoof.manifest import describe_file, manifest_path
from antispoof.manifest_reader import read_manifest
from antispoof.models import create_model
from antispoof.speechlike import speech_like_batch
from export import to_coreml
from runtimes import load, mil, package_files
from runtimes.eager import EagerRuntime
from runtimes.golden import check_golden, golden_paths, read_golden
from runtimes.ml_program.package import read_package
from runtimes.mlpackage import CoreMLRuntime, import_coremltools
from tests.coreml.packages import MODEL, PARITY_TOLERANCE, SMALL, WEIGHTS, copy_of, edit_program, edit_weight

pytest.importorskip("coremltools")

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A package as the command writes it in a process of its own, and what the command said."""
    folder = tmp_path_factory.mktemp("exported")
    done = subprocess.run(
        [sys.executable, "export/to_coreml.py", *SMALL, "--out", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "aasist-l.mlpackage", done


@pytest.fixture(scope="module")
def package(exported: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    return exported[0]


def test_the_command_says_what_it_made_and_nothing_else(
    exported: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = exported
    assert done.stderr == ""
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {
        "file",
        "operations",
        "golden",
        "parity",
    }


def test_a_package_scores_like_pytorch(package: Path) -> None:
    torch.manual_seed(0)  # as --checkpoint random
    reference = EagerRuntime(create_model("aasist-l", clip_samples=16_000), package)
    clips = speech_like_batch(3, 16_000, seed=50)
    runtime = load(package)
    np.testing.assert_allclose(runtime.score(clips), reference.score(clips), atol=PARITY_TOLERANCE, rtol=0)
    assert check_golden(runtime) <= PARITY_TOLERANCE


def test_two_exports_are_byte_identical(package: Path, tmp_path: Path) -> None:
    assert to_coreml.main([*SMALL, "--out", str(tmp_path)]) == 0
    again = tmp_path / package.name
    assert describe_file(again) == describe_file(package)
    for mine, theirs in zip(golden_paths(again), golden_paths(package), strict=True):
        assert mine.read_bytes() == theirs.read_bytes()


def test_apples_own_reader_finds_the_model_and_changes_nothing(package: Path, tmp_path: Path) -> None:
    """It writes a package's manifest anew where it would have written it otherwise."""
    import_coremltools()
    from coremltools.libmodelpackage import ModelPackage

    for seed in range(8):  # the identifiers follow from the content, and their order matters
        copied = tmp_path / f"{seed}.mlpackage"
        shutil.copytree(package, copied)
        (copied / "Manifest.json").write_text(package_files.package_manifest(bytes([seed])))
        before = describe_file(copied)
        assert Path(ModelPackage(str(copied)).getRootModel().path()).resolve() == (copied / MODEL).resolve()
        assert describe_file(copied) == before


def test_the_package_knows_what_its_manifest_knows(package: Path) -> None:
    import_coremltools()
    from coremltools.proto import Model_pb2

    described = Model_pb2.Model.FromString((package / MODEL).read_bytes()).description
    beside = json.loads(manifest_path(package).read_text())
    del beside["file"], beside["parity"], beside["model_version"], beside["golden_sha256"]
    assert json.loads(described.metadata.userDefined["antispoof"]) == beside
    assert json.loads(read_package(package).metadata["antispoof"]) == beside
    assert [feature.name for feature in described.input] == ["waveform"]
    assert list(described.input[0].type.multiArrayType.shape) == [1, 16_000]
    assert [feature.name for feature in described.output] == ["score"]
    assert "bona fide" in described.output[0].shortDescription
    assert described.metadata.author
    assert described.metadata.license


def test_no_path_of_the_machine_is_in_the_package(package: Path) -> None:
    for file in package.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert str(REPOSITORY).encode() not in content
            assert b".py" not in content


def test_nothing_is_overwritten_unless_forced(package: Path, tmp_path: Path) -> None:
    copied = copy_of(package, tmp_path)
    with pytest.raises(UserError, match="--force"):
        to_coreml.main([*SMALL, "--out", str(tmp_path)])
    shutil.rmtree(copied)
    manifest_path(copied).unlink()
    with pytest.raises(UserError, match=r"golden\.json exists; --force"):
        to_coreml.main([*SMALL, "--out", str(tmp_path)])


def test_another_runtime_says_where_it_runs(package: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("this is where it runs")
    with pytest.raises(UserError, match="Apple"):
        CoreMLRuntime(package, read_manifest(package))


def test_one_changed_byte_is_caught(package: Path, tmp_path: Path) -> None:
    copied = copy_of(package, tmp_path)
    content = bytearray((copied / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match="sha256 differs"):
        load(copied)


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "length": ({"input": {"samples": 32_000}}, "32000"),
    "batch": ({"input": {"batch": 4}}, "its manifest says"),
    "input name": ({"input": {"name": "audio"}}, "audio"),
    "output name": ({"output": {"name": "logits"}}, "logits"),
    "format": ({"format": "onnx"}, "onnx"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_caught(lie: str, package: Path, tmp_path: Path) -> None:
    changes, message = LIES[lie]
    copied = copy_of(package, tmp_path)
    facts = json.loads(manifest_path(copied).read_text())
    for key, value in changes.items():
        facts[key] = {**facts[key], **value} if isinstance(value, dict) else value
    manifest_path(copied).write_text(json.dumps(facts))
    with pytest.raises(UserError, match=message):
        load(copied)


# Planted faults: each must be found by running the package, and be named.


def test_a_wrong_weight_is_found_and_named(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = copy_of(package, tmp_path)

    edit_weight(broken, "blocks_2_conv2_weight", lambda weight: weight + 0.5)
    with pytest.raises(CheckFailed, match=r"golden clip \d of 4 scores .* instead of"):
        check_golden(load(broken))
    assert mil.main([str(broken), "--against", str(package), "--tolerance", "1e-4"]) == 1
    said = capsys.readouterr().out
    assert "blocks_2_conv2_weight' differs by 0.5" in said
    assert "against    conv 'conv2d" in said


def test_an_overflow_of_half_precision_is_found_and_named(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = edit_weight(copy_of(package, tmp_path), "blocks_0_conv2_weight", lambda weight: weight * 8e5)
    assert np.isfinite(load(broken).score(speech_like_batch(1, 16_000))).all()
    assert mil.main([str(broken), "--precision", "float16", "--ranges", "--clips", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (departed,) = (line for line in lines if line.startswith("float16"))
    assert "conv 'conv2d" in departed
    assert "beyond measure" in departed
    overflowing = [line for line in lines if line.startswith("OVERFLOWS")]
    assert "conv 'conv2d" in overflowing[0]


def test_a_swapped_axis_is_found_and_named(package: Path, tmp_path: Path) -> None:
    def swap(operations: dict[str, Any]) -> None:
        reduction = next(op for op in operations.values() if op.type == "reduce_max")
        axes = operations[reduction.inputs["axes"].arguments[0].name].attributes["val"]
        values = axes.immediateValue.tensor.ints.values
        assert values[:] == [2]
        values[:] = [3]

    broken = edit_program(copy_of(package, tmp_path), swap)
    with pytest.raises(UserError, match=r"reduce_max 'amax' gives the shape .* where the program declares"):
        load(broken).score(speech_like_batch(1, 16_000))


def test_a_swapped_axis_that_fits_is_found_and_named(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def swap(operations: dict[str, Any]) -> None:
        softmax = next(op for op in operations.values() if op.type == "softmax")  # of a square matrix
        axis = operations[softmax.inputs["axis"].arguments[0].name].attributes["val"]
        values = axis.immediateValue.tensor.ints.values
        assert values[:] == [-1]
        values[:] = [-2]

    broken = edit_program(copy_of(package, tmp_path), swap)
    assert mil.main([str(broken), "--against", str(package), "--tolerance", "1e-4"]) == 1
    said = capsys.readouterr().out
    assert "golden     WRONG" in said
    assert "against    softmax 'softmax'" in said


def test_a_turned_polarity_is_found_and_named(package: Path, tmp_path: Path) -> None:
    broken = edit_weight(copy_of(package, tmp_path), "classify_weight", lambda weight: -weight)
    with pytest.raises(CheckFailed, match="the polarity is turned round"):
        check_golden(load(broken))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda scores, clips: scores.unlink(), "missing"),
        (lambda scores, clips: clips.unlink(), "missing"),
        (lambda scores, clips: scores.write_text("[]"), "no golden scores"),
        (lambda scores, clips: scores.write_text("{}"), "no golden scores"),
        (lambda scores, clips: clips.write_bytes(b"1234"), "sha256 differs"),
    ],
)
def test_damaged_golden_scores_get_one_line(
    edit: Callable[[Path, Path], object], message: str, package: Path, tmp_path: Path
) -> None:
    copied = copy_of(package, tmp_path)
    edit(*golden_paths(copied))
    with pytest.raises(UserError, match=message):
        read_golden(copied)


def test_examining_names_what_it_lacks(tmp_path: Path, package: Path) -> None:
    with pytest.raises(UserError, match="no such package"):
        mil.main([str(tmp_path / "none.mlpackage")])
    with pytest.raises(UserError, match="no"):
        mil.main([str(package), "--audio", str(tmp_path)])


def test_a_sound_package_passes_examination(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mil.main([str(package), "--ranges", "--against", str(package)]) == 0
    said = capsys.readouterr().out
    assert "no operation is off" in said
    assert "half       0 of" in said
