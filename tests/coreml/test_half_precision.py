"""Half precision in Core ML: what is told to stay float32, what the file declares, and what it costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch

from antispoof.errors import UserError
from antispoof.formats import HALF_TOLERANCE, format_named
from antispoof.manifest_reader import read_manifest
from antispoof.models.layers.graph import GraphPool
from antispoof.pretrained import Weights, load_pretrained
from antispoof.speechlike import speech_like_batch
from export import coreml_file, to_coreml
from export.graph import ScoreGraph
from export.lint import lint
from export.pipeline import describe
from runtimes import load, mil, package_files
from runtimes.eager import EagerRuntime
from runtimes.golden import check_golden
from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.package import read_package
from tests.coreml.packages import PUBLIC, SMALL, copy_of, edit_weight

pytest.importorskip("coremltools")

FRONT_END_TOLERANCE = 0.01  # of scores where only what follows the front end is float16; without, 0.025
CLIPS = 12  # of the dev split, in the order of their names; two of them are of the kind that is looked into


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in half precision, on a line of pieces that stay float32."""
    folder = tmp_path_factory.mktemp("half")
    flags = ["--precision", "mixed", "--float32", "layers/graph", "--float32", "linear"]
    assert to_coreml.main([*SMALL, *flags, "--out", str(folder)]) == 0
    return folder / "aasist-l.mlpackage"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--precision", "mixed"], "aasist-l names no part that needs float32"),
        (["--float32", "softmax"], "--float32 goes with --precision mixed"),
    ],
)
def test_mixed_precision_and_its_list_go_together(flags: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        to_coreml.main([*SMALL, *flags, "--out", str(tmp_path)])


def test_the_front_end_alone_stays_float32_where_the_network_asks_for_it(tmp_path: Path) -> None:
    assert to_coreml.main(["--compute-units", "neural-engine", "--out", str(tmp_path)]) == 0
    package = tmp_path / "fscnn.mlpackage"
    manifest = read_manifest(package)
    assert (manifest.precision, manifest.recipe) == ("mixed", "neural-engine; float32: layers/fine_spectrum")
    assert manifest.parity is not None
    assert manifest.parity.max_difference <= FRONT_END_TOLERANCE
    report = lint(package, "ane")
    assert report.partitions == 1  # the engine takes over once, and keeps all that follows
    left = {report.graph.nodes[index].kind for index in report.placement.refused}
    assert "log" in left
    assert "linear" not in left


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


def test_a_score_lost_to_overflow_names_the_operation(half: Path, tmp_path: Path) -> None:
    broken = copy_of(half, tmp_path)
    edit_weight(broken, "blocks_0_conv2_weight_to_fp16", lambda weight: np.full_like(weight, 60_000))
    with pytest.raises(UserError, match="the first operation to give infinite values is conv 'conv2d"):
        load(broken).score(speech_like_batch(1, 16_000))


def test_half_precision_is_what_the_file_declares(half: Path) -> None:
    """The evaluator must not compute in more than a phone would: a float32 run of the same file differs."""
    program = read_package(half)
    clip = {"waveform": speech_like_batch(1, 16_000)}
    stored = {r.operation.name: r.values[0].clone() for r in Evaluator(program).trace(clip)}
    pools = [op.name for op in program.operations if op.kind == "max_pool"]
    for name in pools:
        values = stored[name]
        assert torch.equal(values, values.half().float())


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
