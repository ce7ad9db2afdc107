"""Core ML for the Neural Engine: the same scores, in shapes and operations that it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from antispoof.formats import HALF_TOLERANCE
from antispoof.lowering import NEURAL_ENGINE, Lowering, lowering
from antispoof.manifest_reader import read_manifest
from antispoof.models import create_model, freeze, model_names, small_config
from antispoof.models.layers import primitives
from antispoof.models.layers.graph import GraphPool, rank_descending
from antispoof.models.layers.residual import WaveformEncoder
from antispoof.pretrained import load_pretrained
from antispoof.speechlike import speech_like_batch
from export import neural_engine, to_coreml
from export.lint import lint
from export.targets import load_target
from runtimes import load
from runtimes.eager import EagerRuntime
from runtimes.mil import take_clips
from runtimes.ml_program.package import read_package
from runtimes.ml_program.program import Operation, Program, Type

pytest.importorskip("coremltools")

PARITY_TOLERANCE = 1e-4  # see antispoof.formats
ROUNDING = 1e-5  # sums in another order, of a thousand products of about 1
LONGEST_AXIS, MOST_AXES = 16_384, 5
# What a detector may need. Nothing that picks elements by their values, in either direction.
# fmt: off
ALLOWED = frozenset({
    "abs", "add", "avg_pool", "batch_norm", "clip", "concat", "conv", "elu", "exp", "expand_dims", "gelu",
    "layer_norm", "leaky_relu", "linear", "log", "matmul", "max_pool", "maximum", "minimum", "mul", "pad",
    "real_div", "reduce_l2_norm", "reduce_max", "reduce_mean", "reduce_min", "reduce_sum", "relu",
    "reshape", "rsqrt", "sigmoid", "silu", "slice_by_index", "softmax", "softplus", "split", "sqrt",
    "square", "squeeze", "stack", "sub", "tanh", "transpose",
})
# fmt: on
SAMPLES = 20_010  # more than an axis may have
SMALL = ["--model", "aasist-l", "--checkpoint", "random", "--set", f"clip_samples={SAMPLES}"]
# Models that work on the whole waveform by more than what folds it, and by how many operations. They are
# cheap, and come first, so that the engine takes over in one piece all the same.
SEES_THE_WAVEFORM = {"bimamba-lora": 1, "fscnn": 6, "moe-mamba": 1, "se-mamba": 1}
ENGINE = ["--compute-units", "neural-engine"]


def unclean(program: Program) -> Iterator[str]:
    """Yields what the engine would refuse, but for the conversion of input and output themselves."""
    ends = {program.inputs[0][1].shape, (1,)}
    for op in program.operations:
        shapes = [kind.shape for _, kind in op.outputs]
        if op.kind == "const" or (op.kind == "cast" and set(shapes) <= ends):
            continue
        if op.kind not in ALLOWED:
            yield f"{op.describe()}: kind"
        if any(len(shape) > MOST_AXES or max(shape, default=0) > LONGEST_AXIS for shape in shapes):
            yield f"{op.describe()}: shape"


def computing(program: Program) -> list[Operation]:
    return [op for op in program.operations if op.kind != "const"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AASIST-L with random weights for the engine, in float32, which shows its numbers."""
    folder = tmp_path_factory.mktemp("engine")
    assert to_coreml.main([*SMALL, *ENGINE, "--precision", "float32", "--out", str(folder)]) == 0
    return folder / "aasist-l.mlpackage"


def test_scores_are_those_of_pytorch(package: Path) -> None:
    parity = read_manifest(package).parity
    assert parity is not None
    assert parity.max_difference <= PARITY_TOLERANCE
    torch.manual_seed(0)  # as --checkpoint random
    reference = EagerRuntime(create_model("aasist-l", clip_samples=SAMPLES), package)
    clips = speech_like_batch(1, SAMPLES, seed=50)
    np.testing.assert_allclose(load(package).score(clips), reference.score(clips), atol=PARITY_TOLERANCE)


def test_nothing_in_it_is_too_large_or_of_a_kind_that_is_refused(package: Path) -> None:
    program = read_package(package)
    assert list(unclean(program)) == []
    assert max(len(kind.shape) for op in computing(program) for _, kind in op.outputs) <= 4
    assert read_manifest(package).recipe == "neural-engine"


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("topk", (1, 4)), ("conv", (1, 69, 1, 16_385)), ("add", (1,) * 6), ("cast", (1, 4))],
)
def test_the_check_for_that_can_fail(kind: str, shape: tuple[int, ...], package: Path) -> None:
    program = read_package(package)
    bad = Operation(kind, "bad", {}, (("x", Type("float16", shape)),))
    found = list(unclean(replace(program, operations=(*program.operations, bad))))
    assert len(found) == 1
    assert f"{kind} 'bad'" in found[0]


def test_in_half_precision_only_the_ends_are_left_to_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert to_coreml.main([*SMALL, *ENGINE, "--out", str(tmp_path)]) == 0
    package = tmp_path / "aasist-l.mlpackage"
    assert read_manifest(package).precision == "float16"
    report = lint(package, "ane")
    left = sorted(report.graph.nodes[index].kind for index in report.placement.refused)
    assert left == ["cast", "cast", "reshape"]
    assert report.placement.fallback == 0
    assert report.partitions == 1
    assert list(unclean(read_package(package))) == []
    assert "2 cast, 1 reshape; 0.0 % of the multiply-adds" in capsys.readouterr().out


def test_the_limits_are_those_that_lint_knows() -> None:
    table = load_target("ane", "coreml")
    assert (table.axis, table.rank) == (NEURAL_ENGINE.longest_axis, MOST_AXES)
    assert table.only["conv"]["kernel"] == neural_engine.MOST_TAPS


# The lowering: one network, said in other words


@pytest.mark.parametrize("name", model_names())
def test_every_model_is_the_same_in_the_engines_words(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, **small_config(name)).eval()
    clips = torch.from_numpy(speech_like_batch(1, model.clip_samples))
    with torch.inference_mode():
        expected = model.score(model(clips))
        with lowering(NEURAL_ENGINE):
            freeze(model)
            actual = model.score(model(clips))
    torch.testing.assert_close(actual, expected, atol=PARITY_TOLERANCE, rtol=0)


@pytest.mark.parametrize("samples", [1_500, 2_501, 9_999, 10_007])
def test_an_encoder_keeps_to_the_longest_axis(samples: int) -> None:
    torch.manual_seed(0)
    encoder = WaveformEncoder(6, 129, (2, 2, 4)).double().eval()
    waveform = torch.from_numpy(speech_like_batch(1, samples)).double()
    longest: list[int] = []
    for module in encoder.modules():
        module.register_forward_hook(lambda _, given, out: longest.append(max(*out.shape, *given[0].shape)))
    with torch.inference_mode(), lowering(Lowering(longest_axis=2_500)):
        folded = encoder(waveform)
    longest.pop()  # the whole, whose input is the waveform
    assert max(longest) <= 2_500
    with torch.inference_mode():
        # Double precision tells a wrong column from sums in another order.
        torch.testing.assert_close(folded, encoder(waveform), atol=1e-13, rtol=0)


def test_comparisons_in_half_precision() -> None:
    """All differences of two numbers that half precision knows: tiny, ordinary, large, none."""
    numbers = [0.0, 2**-24, 2**-23, 1e-4, 0.5 - 2**-12, 0.5, 0.5, 1.0, 1 + 2**-10, 30.0, 30.0, 1_000.0]
    score = torch.tensor(numbers)[None, :, None]
    native = rank_descending(score)
    assert sorted(native.flatten().tolist()) == list(range(len(numbers)))
    with lowering(Lowering(compare="half")):
        for dtype in (torch.float32, torch.float16):
            ranks = rank_descending(score.to(dtype))
            torch.testing.assert_close(ranks, native.to(dtype), atol=0, rtol=0)
    tie = torch.tensor([True, False])
    assert primitives.ahead_by(torch.zeros(2).half(), tie).tolist() == [1, 0]


def test_pools_tell_nodes_apart_that_half_precision_scores_alike() -> None:
    torch.manual_seed(0)
    pool = GraphPool(8, 0.5).eval()
    nodes = torch.randn(1, 1, 8) + 0.02 * torch.randn(1, 20, 8)
    nodes = nodes.half().float()  # what a network in half precision would hand over
    pool.gate.weight.data = pool.gate.weight.data.half().float()
    pool.gate.bias.data.fill_(3.0)  # scores near 1, which lie 0.0005 apart
    with torch.inference_mode():
        expected = pool(nodes)
        native = pool.half()(nodes.half()).float()
        with lowering(NEURAL_ENGINE):
            engine = pool(nodes.half()).float()
            silent = pool.float()(torch.ones(1, 6, 8))
    rounding = 2e-3  # of values up to 2 that were multiplied once
    torch.testing.assert_close(engine, expected, atol=rounding, rtol=0)
    assert float((native - expected).abs().max()) > 10 * rounding
    torch.testing.assert_close(silent, pool(torch.ones(1, 6, 8)), atol=0, rtol=0)


# The rules of the converter


CONVOLUTIONS: dict[str, tuple[nn.Conv1d | nn.Conv2d, tuple[int, ...]]] = {
    "sinc on a row": (nn.Conv2d(1, 6, (1, 129)), (1, 1, 1, 700)),
    "several channels": (nn.Conv1d(3, 4, 27), (2, 3, 100)),
    "groups, padded, even": (nn.Conv1d(12, 8, 128, padding=64, groups=4), (1, 12, 200)),
    "a stride": (nn.Conv1d(1, 4, 40, stride=7, padding=3), (1, 1, 500)),
    "steps over a waveform": (nn.Conv1d(1, 8, 10, stride=5), (1, 1, 64_600)),
    "steps that do not divide it": (nn.Conv1d(1, 8, 11, stride=4, bias=False), (1, 1, 20_003)),
    "steps longer than filters": (nn.Conv1d(1, 8, 3, stride=4), (2, 1, 20_000)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions_in_shapes_that_the_engine_takes(case: str) -> None:
    torch.manual_seed(0)
    layer, shape = CONVOLUTIONS[case]
    x = torch.randn(shape)
    kind = torch.ops.aten.conv1d.default if isinstance(layer, nn.Conv1d) else torch.ops.aten.conv2d.default
    seen: list[torch.Size] = []

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if function in (torch.conv1d, torch.conv2d):
                seen.extend(tensor.shape for tensor in args[:2])
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Watched():
        given = neural_engine.TABLE[kind](
            x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )
    assert given is not NotImplemented
    torch.testing.assert_close(given, layer(x), atol=ROUNDING, rtol=0)
    assert max(seen[0]) <= LONGEST_AXIS
    assert seen[1][-1] <= neural_engine.MOST_TAPS
    assert len(seen[0]) == len(shape)


@pytest.mark.parametrize("shape", [(1, 7, 300), (1, 5, 6, 300)])
def test_a_large_layer_is_a_convolution(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    large, small = nn.Linear(300, 256), nn.Linear(300, 8)
    rule = neural_engine.TABLE[torch.ops.aten.linear.default]
    x = torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(rule(x, large.weight, large.bias), large(x), atol=ROUNDING, rtol=0)
        assert rule(x, small.weight, small.bias) is NotImplemented
        assert rule(x[0, 0].view(-1, 300), large.weight) is NotImplemented


def test_what_the_engine_takes_stays_as_it_is() -> None:
    for layer, shape in ((nn.Conv1d(2, 2, 13), (1, 2, 64)), (nn.Conv2d(2, 2, (2, 3)), (1, 2, 8, 64))):
        kind = torch.ops.aten.conv1d if isinstance(layer, nn.Conv1d) else torch.ops.aten.conv2d
        rule = neural_engine.TABLE[kind.default]
        assert rule(torch.zeros(shape), layer.weight, layer.bias) is NotImplemented


# With patience, or the real weights


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_every_model_is_exported_for_the_engine(name: str, tmp_path: Path) -> None:
    flags = ["--model", name, "--checkpoint", "random", *ENGINE, "--precision", "float32"]
    for key, value in small_config(name).items():
        value = SAMPLES if key == "clip_samples" else value
        flags += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    assert to_coreml.main([*flags, "--out", str(tmp_path)]) == 0
    program = read_package(tmp_path / f"{name}.mlpackage")
    assert len(list(unclean(program))) <= SEES_THE_WAVEFORM.get(name, 0)


PUBLIC = ["AASIST.pth", "AASIST-L.pth"]
# A clip on which two nodes of the graph pooling nearly tie may score 0.09 off: the encoder's own rounding
# decides. With AASIST-L that is 5 of 100 dev clips.
CLIPS, NEAR_TIES, NEAR_TIE_TOLERANCE = 12, 2, 0.2


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", PUBLIC)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_public_weights_score_real_speech(
    checkpoint: str, precision: str, shared: Path, tmp_path: Path
) -> None:
    flags = ["--checkpoint", str(shared / "weights" / checkpoint), *ENGINE, "--precision", precision]
    assert to_coreml.main([*flags, "--out", str(tmp_path)]) == 0
    (package,) = tmp_path.glob("*.mlpackage")
    assert list(unclean(read_package(package))) == []
    weights = load_pretrained(str(shared / "weights" / checkpoint))
    clips = take_clips(shared / "audio" / "asvspoof" / "dev", CLIPS, weights.detector.clip_samples)
    reference, runtime = EagerRuntime(weights.detector, tmp_path), load(package)
    difference = np.sort(
        [abs(reference.score(clip[None])[0] - runtime.score(clip[None])[0]) for clip in clips]
    )
    if precision == "float32":
        assert difference[-1] <= PARITY_TOLERANCE
    else:
        assert difference[-1 - NEAR_TIES] <= HALF_TOLERANCE
        assert difference[-1] <= NEAR_TIE_TOLERANCE
