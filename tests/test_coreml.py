"""Core ML export: packages that score like PyTorch, and planted faults that are found and named."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antispoof.errors import CheckFailed, UserError
from antispoof.formats import HALF_TOLERANCE, format_named
from antispoof.manifest import describe_file, manifest_path, read_manifest
from antispoof.models import create_model, model_names, small_config
from antispoof.models.layers.graph import GraphPool
from antispoof.pretrained import Weights, load_pretrained
from antispoof.speechlike import speech_like_batch
from export import coreml_file, to_coreml
from export.graph import ScoreGraph
from export.pipeline import describe
from runtimes import load, mil, package_files
from runtimes.eager import EagerRuntime
from runtimes.golden import check_golden, golden_paths, read_golden
from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.kinds import KINDS
from runtimes.ml_program.package import read_package
from runtimes.ml_program.program import Program
from runtimes.mlpackage import CoreMLRuntime, import_coremltools

pytest.importorskip("coremltools")

PARITY_TOLERANCE = 1e-4  # see antispoof.formats
REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = ["--model", "aasist-l", "--checkpoint", "random", "--set", "clip_samples=16000"]
MODEL = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS = Path("Data", "com.apple.CoreML", "weights", "weight.bin")


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


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in half precision, on a line of pieces that stay float32."""
    folder = tmp_path_factory.mktemp("half")
    flags = ["--precision", "mixed", "--float32", "layers/graph", "--float32", "linear"]
    assert to_coreml.main([*SMALL, *flags, "--out", str(folder)]) == 0
    return folder / "aasist-l.mlpackage"


def copy_of(package: Path, folder: Path) -> Path:
    shutil.copytree(package, folder / package.name)
    for beside in (manifest_path(package), *golden_paths(package)):
        shutil.copy(beside, folder / beside.name)
    return folder / package.name


def vouch(package: Path) -> Path:
    """Makes the manifest an honest one of what was changed, so that only values can give it away."""
    facts = json.loads(manifest_path(package).read_text())
    facts["file"] = asdict(describe_file(package))
    manifest_path(package).write_text(json.dumps(facts))
    return package


def edit_program(package: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Changes operations, given by the names of what they compute."""
    import_coremltools()
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model.FromString((package / MODEL).read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    edit({op.outputs[0].name: op for op in block.operations})
    (package / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    return vouch(package)


def edit_weight(package: Path, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Changes the weight whose name ends so, in ``weight.bin`` alone."""
    program: Program = read_package(package)
    (constant,) = (op for op in program.operations if op.kind == "const" and op.outputs[0][0].endswith(name))
    stored = np.array(constant.arguments["val"])
    content = (package / WEIGHTS).read_bytes()
    assert content.count(stored.tobytes()) == 1
    changed = edit(stored).astype(stored.dtype)
    (package / WEIGHTS).write_bytes(content.replace(stored.tobytes(), changed.tobytes()))
    return vouch(package)


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


@pytest.mark.parametrize("flags", [["--precision", "mixed"], ["--float32", "softmax"]])
def test_mixed_precision_and_its_list_go_together(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="go together"):
        to_coreml.main([*SMALL, *flags, "--out", str(tmp_path)])


def test_mixed_precision_keeps_what_it_is_told_to_keep(half: Path) -> None:
    types = {
        op.kind: {kind.dtype for _, kind in op.outputs}
        for op in read_package(half).operations
        if op.kind in ("conv", "max_pool", "tanh", "softmax", "linear")
    }
    assert types["conv"] == types["max_pool"] == {"float16"}
    assert types["tanh"] == types["softmax"] == types["linear"] == {"float32"}
    manifest = read_manifest(half)
    assert (manifest.precision, manifest.recipe) == ("mixed", "float32: layers/graph, linear")
    assert manifest.parity is not None
    assert manifest.parity.tolerance == HALF_TOLERANCE
    assert check_golden(load(half)) <= HALF_TOLERANCE


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


def test_a_score_lost_to_overflow_names_the_operation(half: Path, tmp_path: Path) -> None:
    broken = copy_of(half, tmp_path)
    edit_weight(broken, "blocks_0_conv2_weight_to_fp16", lambda weight: np.full_like(weight, 60_000))
    with pytest.raises(UserError, match="the first operation to give infinite values is conv 'conv2d"):
        load(broken).score(speech_like_batch(1, 16_000))


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


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_every_model_exports_and_scores_like_pytorch(name: str, tmp_path: Path) -> None:
    flags = ["--model", name, "--checkpoint", "random"]
    for key, value in small_config(name).items():
        flags += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    assert to_coreml.main([*flags, "--out", str(tmp_path)]) == 0
    parity = read_manifest(tmp_path / f"{name}.mlpackage").parity
    assert parity is not None
    assert parity.max_difference <= PARITY_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_other_targets_score_the_same(target: str, tmp_path: Path) -> None:
    assert to_coreml.main([*SMALL, "--target", target, "--out", str(tmp_path)]) == 0


PUBLIC = ["AASIST.pth", "AASIST-L.pth"]
CLIPS = 12  # of the dev split, in the order of their names; two of them are of the kind that is looked into


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", PUBLIC)
def test_public_weights_score_real_speech_as_in_pytorch(
    checkpoint: str, shared: Path, tmp_path: Path
) -> None:
    flags = ["--checkpoint", str(shared / "weights" / checkpoint), "--out", str(tmp_path)]
    assert to_coreml.main([*flags, "--verify-audio", str(shared / "audio" / "asvspoof" / "dev")]) == 0
    (package,) = tmp_path.glob("*.mlpackage")
    parity = read_manifest(package).parity
    assert parity is not None
    assert parity.max_difference <= PARITY_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", PUBLIC)
def test_public_weights_in_half_precision_score_real_speech(
    checkpoint: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 0.02, but where rounding makes two nodes of the graph pooling change places, which have nearly tied.

    Of those clips the arithmetic is as exact: given float32's order, they score within 0.02 too.
    """
    weights = load_pretrained(str(shared / "weights" / checkpoint))
    clips = mil.take_clips(shared / "audio" / "asvspoof" / "dev", CLIPS, weights.detector.clip_samples)
    expected = EagerRuntime(weights.detector, tmp_path).score(clips)
    network = half_package(weights, tmp_path / "half.mlpackage")
    difference = np.abs(
        [float(network.run({"waveform": clip[None]})["score"][0]) for clip in clips] - expected
    )
    exchanged = np.flatnonzero(difference > HALF_TOLERANCE)
    assert len(exchanged) < len(clips) / 4
    for index in exchanged:
        waveform = clips[index : index + 1]
        orders: list[torch.Tensor] = []
        with monkeypatch.context() as patch:
            patch.setattr(GraphPool, "forward", partialmethod(pool_and_tell, orders))
            EagerRuntime(weights.detector, tmp_path).score(waveform)
        with monkeypatch.context() as patch:
            patch.setattr(GraphPool, "forward", partialmethod(pool_as_told, itertools.cycle(orders)))
            told = half_package(weights, tmp_path / f"told-{index}.mlpackage")
        score = float(told.run({"waveform": waveform})["score"][0])
        assert abs(score - expected[index]) <= HALF_TOLERANCE


def half_package(weights: Weights, path: Path) -> Evaluator:
    """Writes a package in half precision and returns what evaluates it."""
    converted = coreml_file.convert(ScoreGraph(weights.detector), precision="float16")
    manifest = describe(weights, format_named("coreml"), batch=1, precision="float16", recipe="none")
    package_files.write_package(converted.model, manifest, path)
    return Evaluator(read_package(path))


def pool_and_tell(pool: GraphPool, orders: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Pools as ever, and appends the one-hot matrix ``(batch, kept, nodes)`` of what it keeps, in order."""
    score = torch.sigmoid(pool.gate(x))
    kept = torch.argsort(score.squeeze(2), dim=1, descending=True, stable=True)[:, : pool.kept(x.shape[1])]
    orders.append(torch.nn.functional.one_hot(kept, x.shape[1]).to(x.dtype))
    return orders[-1] @ (x * score)


def pool_as_told(pool: GraphPool, orders: Iterator[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Pools by the next of ``orders``."""
    return next(orders) @ (x * torch.sigmoid(pool.gate(x)))


def test_half_precision_is_what_the_file_declares(half: Path) -> None:
    """The evaluator must not compute in more than a phone would: a float32 run of the same file differs."""
    program = read_package(half)
    clip = {"waveform": speech_like_batch(1, 16_000)}
    stored = {r.operation.name: r.values[0].clone() for r in Evaluator(program).trace(clip)}
    pools = [op.name for op in program.operations if op.kind == "max_pool"]
    for name in pools:
        values = stored[name]
        assert torch.equal(values, values.half().float())


def test_values_joined_in_turn() -> None:
    """As MIL's definition of ``concat`` with ``interleave`` has it."""
    one, two = torch.arange(6).reshape(3, 2), torch.arange(6, 12).reshape(3, 2)
    rows = KINDS["concat"].function(values=[one, two], axis=0, interleave=True)
    assert rows.tolist() == [[0, 1], [6, 7], [2, 3], [8, 9], [4, 5], [10, 11]]
    columns = KINDS["concat"].function(values=[one, two], axis=-1, interleave=True)
    assert columns.tolist() == [[0, 6, 1, 7], [2, 8, 3, 9], [4, 10, 5, 11]]
