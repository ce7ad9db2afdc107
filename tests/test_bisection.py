"""Bisecting a failed export: planted faults are named by their path, and sound networks are not accused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antispoof.errors import CheckFailed, UserError
from antispoof.models import Detector, DetectorOutput, create_model, model_names, small_config
from antispoof.models.detector import Config
from antispoof.pretrained import Weights
from antispoof.speechlike import speech_like_batch
from export import bisection, coreml_file, onnx_file, tflite_file, to_coreml, to_onnx, to_tflite
from export.bisection import ScoresDiffer, Trial, find_culprit, naming_culprit, record_calls

TOLERANCE = 1e-4  # see antispoof.formats
SAMPLES = 256


class Determinant(nn.Module):
    """What no exporter has an operation for."""

    def forward(self, x: Tensor) -> Tensor:
        square = x[:, :, :4] + torch.eye(4)
        return x * torch.linalg.eigvals(square).real.sum(dim=1)[:, None, None]


class Lying(nn.Module):
    """Something else for exporters than for everyone."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.1 * x if torch.compiler.is_exporting() else x * 1.0


class Block(nn.Module):
    """A convolution, one of the two above or neither, and a list whose parts are called one by one."""

    def __init__(self, fault: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 8, stride=8)
        self.norm = nn.BatchNorm1d(4)
        self.steps = nn.ModuleList([nn.ReLU(), nn.Sequential(nn.Dropout(0.1), fault, nn.Tanh())])

    def forward(self, x: Tensor, scale: float = 1.0, *, shift: Tensor | None = None) -> tuple[Tensor, float]:
        x = self.norm(self.conv(x)) * scale + (0 if shift is None else shift)
        for step in self.steps:
            x = step(x)
        return x, scale


class Toy(Detector):
    """A network with a fault, or without."""

    config = Config(SAMPLES)
    clip_samples = SAMPLES
    name = "toy"

    def __init__(self, fault: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = Block(fault)
        self.shift = nn.Parameter(torch.ones(1, 4, 1))
        self.classify = nn.Linear(4, 2)

    def forward(self, waveform: Tensor) -> DetectorOutput:
        x, _ = self.block(waveform.unsqueeze(1), 2.0, shift=self.shift)
        return DetectorOutput(self.classify(x.mean(dim=2)), x[:, :, 0])


@pytest.fixture
def clip() -> Tensor:
    return torch.from_numpy(speech_like_batch(1, SAMPLES))


TRIALS: dict[str, Trial] = {
    "onnx": onnx_file.run_part,
    "coreml": coreml_file.run_part,
    "tflite": tflite_file.run_part,
}
FORMATS = ["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("coreml", "tflite"))]


@pytest.mark.parametrize("format", FORMATS)
def test_an_operation_that_cannot_be_converted_is_named(format: str, clip: Tensor) -> None:
    culprit = find_culprit(Toy(Determinant()), TRIALS[format], clip, TOLERANCE)
    assert culprit is not None
    assert (culprit.path, culprit.kind) == ("block.steps.1.1", "Determinant")
    assert culprit.problem.startswith("cannot be exported: ")


class Median(nn.Module):
    """What no exporter has an operation for, nor PyTorch a decomposition."""

    def forward(self, x: Tensor) -> Tensor:
        return x.median(dim=2, keepdim=True).values


@pytest.mark.parametrize("command", [to_onnx, to_coreml, to_tflite])
def test_an_unknown_operation_is_told_in_one_line(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = Weights(Toy(Median()), "made up", "none")
    monkeypatch.setattr(command, "take_weights", lambda args: weights)
    with pytest.raises(UserError, match=r"has no rule for aten\.median\.dim; --bisect names"):
        command.main(["--out", str(tmp_path / "out")])
    with pytest.raises(CheckFailed, match=r"has no rule for .* fails alone is block.steps.1.1 \(Median\)"):
        command.main(["--bisect", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("format", FORMATS)
def test_a_part_whose_exported_numbers_differ_is_named(format: str, clip: Tensor) -> None:
    culprit = find_culprit(Toy(Lying()), TRIALS[format], clip, TOLERANCE)
    assert culprit is not None
    assert (culprit.path, culprit.kind) == ("block.steps.1.1", "Lying")
    assert culprit.problem.startswith("differs by ")


@pytest.mark.parametrize("format", FORMATS)
def test_a_sound_network_is_not_accused(
    format: str, clip: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_culprit(Toy(nn.Sigmoid()), TRIALS[format], clip, TOLERANCE) is None
    assert "block: as in PyTorch" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_no_part_of_a_sound_detector_is_accused(name: str) -> None:
    torch.manual_seed(0)
    detector = create_model(name, **small_config(name)).eval()
    clip = torch.from_numpy(speech_like_batch(1, detector.clip_samples))
    assert find_culprit(detector, onnx_file.run_part, clip, TOLERANCE) is None


@pytest.mark.slow
def test_a_wrong_lowering_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through the command: tiles of time without the columns that they share with their neighbours."""
    from antispoof.models.layers.residual import WaveformEncoder

    def without_overlap(self: WaveformEncoder, waveform: Tensor, tiles: int, blocks: int) -> Tensor:
        whole = self._bands(waveform)
        return torch.cat([self.blocks[:blocks](part) for part in whole.chunk(tiles, dim=3)], dim=3)

    monkeypatch.setattr(WaveformEncoder, "_in_tiles", without_overlap)
    small = ["--model", "aasist-l", "--checkpoint", "random", "--set", "clip_samples=16000"]
    with pytest.raises(
        CheckFailed, match=r"does not score .* that fails alone is encoder \(WaveformEncoder\)"
    ):
        to_onnx.main([*small, "--time-tiles", "3", "--bisect", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_wrong_rule_of_the_converter_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from export import coreml_graph

    def wrong(x: Tensor, kernel: list[int], *_: object) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, kernel)

    monkeypatch.setitem(coreml_graph._TABLE, torch.ops.aten.max_pool2d.default, wrong)
    weights = Weights(PoolingToy(), "made up", "none")
    monkeypatch.setattr(to_coreml, "take_weights", lambda args: weights)
    with pytest.raises(CheckFailed, match=r"fails alone is pool \(MaxPool2d\): differs by"):
        to_coreml.main(["--bisect", "--out", str(tmp_path / "out")])


class PoolingToy(Toy):
    """One more part."""

    def __init__(self) -> None:
        super().__init__(nn.Sigmoid())
        self.pool = nn.MaxPool2d((1, 2))

    def forward(self, waveform: Tensor) -> DetectorOutput:
        return super().forward(self.pool(waveform[:, None, None])[:, 0, 0])


def test_the_worst_clip_is_the_one_that_parts_run_on(clip: Tensor) -> None:
    clips = np.concatenate([np.zeros((1, SAMPLES), np.float32), clip.numpy()])
    seen: list[Tensor] = []

    def trial(part: nn.Module, inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
        seen.extend(inputs)
        return [x.numpy() for x in part(*inputs)]

    with (
        pytest.raises(CheckFailed, match="off; no part fails alone"),
        naming_culprit(Toy(nn.Sigmoid()), trial, clips, TOLERANCE),
    ):
        raise ScoresDiffer("off", clip=1)
    assert torch.equal(seen[0].flatten(), clip.flatten())


def test_failures_pass_as_they_are_unless_asked() -> None:
    network, clips = Toy(nn.Sigmoid()), np.zeros((1, SAMPLES), np.float32)
    with pytest.raises(KeyError), naming_culprit(network, None, clips, TOLERANCE):
        raise KeyError("a bug keeps its traceback")
    trial: Trial = onnx_file.run_part
    with pytest.raises(UserError, match="not installed"), naming_culprit(network, trial, clips, TOLERANCE):
        raise UserError("onnx is not installed") from ImportError()


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ([np.zeros((1, 4, 32), np.float32)], "differs by"),
        ([np.full((1, 4, 32), np.nan, np.float32)], "differs by nan"),
        ([np.zeros((1, 4), np.float32)], r"gives the shape (1, 4) instead of (1, 4, 32)"),
        ([], "gives 0 tensors instead of 1"),
    ],
)
def test_every_way_to_be_wrong_has_its_words(outputs: list[np.ndarray], problem: str, clip: Tensor) -> None:
    culprit = find_culprit(Toy(nn.Sigmoid()), lambda part, inputs: outputs, clip, TOLERANCE)
    assert culprit is not None
    assert culprit.path == "block.conv"
    assert problem in culprit.problem


def test_parts_run_alone_as_in_the_network(clip: Tensor) -> None:
    """Every part, on what was recorded, gives what was recorded; arguments may be of any kind."""
    network = Toy(nn.Sigmoid())
    calls = record_calls(network, clip)
    assert set(calls) >= {"block", "block.conv", "block.steps.1", "block.steps.1.1", "classify"}
    for path, call in calls.items():
        part = bisection.Part(network.get_submodule(path), call)
        for expected, actual in zip(call.outputs, part(*call.inputs), strict=True):
            torch.testing.assert_close(actual, expected, atol=0, rtol=0)
