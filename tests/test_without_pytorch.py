"""Commands that work on exported files do not import PyTorch, which takes a second and most of the memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antispoof.audio import SAMPLE_RATE
from antispoof.speechlike import speech_like
from tests.manifests import copy_model

RUN = """
import importlib, sys
sys.modules['torch'] = None  # an import of it fails
sys.exit(importlib.import_module(sys.argv[1]).main(sys.argv[2:]))
"""
TRIALS = ["--audio", ".", "--protocol", "labels.tsv"]
COMMANDS = {
    "export.lint": ["one.onnx", "--target", "nnapi", "--audio", "."],
    "benchmarks.latency": ["one.onnx", "other.onnx", "--repeats", "2"],
    "benchmarks.parity": ["one.onnx", "other.onnx", *TRIALS, "--allowed-eer-difference", "100", "--faster"],
    "benchmarks.quantized": ["one.onnx", "other.onnx", *TRIALS, "--rounds", "2"],
    "benchmarks.robustness": ["one.onnx", *TRIALS, "--conditions", "g711", "--bootstrap", "20"],
    "benchmarks.throughput": ["one.onnx", "--audio", ".", "--workers", "1", "--rounds", "2"],
    "runtimes.score": ["one.onnx", "."],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, loudness_model: Path) -> Path:
    """A folder of two exported files that score alike, and four labelled clips."""
    folder = tmp_path_factory.mktemp("without-pytorch")
    for name in ("one.onnx", "other.onnx"):
        copy_model(loudness_model, folder / name)
    for index in range(4):
        clip = np.float32(0.2 * (index + 1)) * speech_like(index, SAMPLE_RATE)
        soundfile.write(folder / f"{index}.wav", clip, SAMPLE_RATE)
    rows = [f"{index}.wav\t{label}" for index, label in enumerate(["spoof", "spoof", "bonafide", "bonafide"])]
    (folder / "labels.tsv").write_text("path\tlabel\n" + "\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("module", COMMANDS)
def test_exported_files_are_worked_on(module: str, place: Path) -> None:
    command = [sys.executable, "-c", RUN, module, *COMMANDS[module]]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
