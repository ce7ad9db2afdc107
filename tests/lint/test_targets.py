"""What targets take and refuse: of the public AASIST, of our own export, of ML Programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from antispoof.audio import SAMPLE_RATE
from antispoof.graph_cost import total_cost
from antispoof.speechlike import speech_like
from export.lint import lint, main
from tests.lint.small_files import SAMPLES, found

Capture = pytest.CaptureFixture[str]


def test_nnapi_refuses_what_is_known_of_the_public_aasist(aasist_like: Path) -> None:
    report = lint(aasist_like, "nnapi")
    missing = {what.removeprefix("no ") for what in found(report, "operation")}
    assert missing == {"Selu", "TopK", "GatherElements", "ScatterND", "ReduceSum"}
    assert found(report, "operation")["no Selu"].todo == "write it as Elu times a constant"
    assert found(report, "operation")["no Selu"].names == ("active",)
    assert set(found(report, "type")) == {"computes in int64"}
    assert set(found(report, "rule")) == {"Conv of rank 3", "MaxPool of rank 3"}
    # All multiply-adds are the convolution's, and it is not taken.
    assert (report.placement.fallback, found(report, "rule")["Conv of rank 3"].share) == (1, 1)


def test_the_neural_engine_refuses_axes_windows_and_types(aasist_like: Path) -> None:
    report = lint(aasist_like, "ane")
    (axis,) = found(report, "axis").values()
    assert axis.what == "axis over 16,384, up to 64,600"
    assert axis.count == 6  # Conv, Abs, MaxPool, and of 21,490: Selu, TopK and GatherElements
    assert "Conv with a window over 13" in found(report, "rule")
    assert "computes in float32" in found(report, "type")
    assert report.partitions == 0


def test_onnx_runtime_on_the_cpu_takes_it_all(aasist_like: Path) -> None:
    report = lint(aasist_like)
    assert (report.target.name, report.placement.refused, report.partitions) == ("onnxruntime-cpu", {}, 1)
    assert {finding.check for finding in report.findings} == {"metadata"}


def test_our_own_export_is_clean_and_public_trouble_is_gone(exported_model: Path, capsys: Capture) -> None:
    assert main([str(exported_model), "--max-fallback", "0", "--max-partitions", "1"]) == 0
    shown = capsys.readouterr().out
    assert "verdict     clean" in shown
    assert "no thresholds and no calibration" in shown
    missing = {
        what for target in ("nnapi", "coreml") for what in found(lint(exported_model, target), "operation")
    }
    assert not missing & {"no TopK", "no GatherElements", "no ScatterND", "no Expand", "no Where"}
    assert lint(exported_model, "qnn").partitions == 1


def test_half_precision_folded_fits_the_neural_engine(package: Callable[[str], Path]) -> None:
    path = package("FLOAT16")
    report = lint(path, "ane")
    assert {f.check for f in report.findings if f.level == "problem"} == {"metadata"}  # there is no manifest
    assert (report.placement.fallback, report.partitions) == (0, 1)
    (ends,) = found(report, "ends").values()
    assert ends.level == "note"
    assert total_cost(report.graph.nodes, report.graph.values).macs == 8 * 4 * 5 * (SAMPLES // 4 // 5)


def test_float32_does_not(package: Callable[[str], Path], tmp_path: Path) -> None:
    path = package("FLOAT32")
    report = lint(path, "ane")
    assert (report.placement.fallback, report.partitions) == (1, 0)
    assert "to_coreml.py --precision float16" in found(report, "type")["computes in float32"].todo
    assert lint(path, "coreml").partitions == 1
    soundfile.write(tmp_path / "clip.wav", speech_like(0, SAMPLE_RATE), SAMPLE_RATE)
    half = found(lint(path, "coreml", tmp_path), "half")
    assert any("tensors stay within" in what for what in half)
