"""The second witness of a TFLite file: what it is given is the same network, and it sees what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from antispoof.errors import CheckFailed
from antispoof.speechlike import speech_like_batch
from export import to_tflite, witness
from runtimes.litert import open_interpreter
from runtimes.tflite_bytes import packed, unpacked

SAMPLES = 16_000
SMALL = ["--model", "aasist-l", "--checkpoint", "random", "--set", f"clip_samples={SAMPLES}"]
SAME = 1e-5  # two orders of summation
needs_tf2onnx = pytest.mark.skipif(not witness.is_available(), reason="needs tf2onnx and tensorflow")


def test_what_the_witness_is_given_scores_the_same(one_second_tflite: Path) -> None:
    content = one_second_tflite.read_bytes()
    model = unpacked(content)
    before = len(model.subgraphs[0].operators)
    witness._add_biases_apart(model)
    assert len(model.subgraphs[0].operators) > before
    clip = speech_like_batch(1, SAMPLES)
    scores = [
        open_interpreter(file, threads=1).get_signature_runner()(waveform=clip)["score"]
        for file in (content, packed(model))
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=0, atol=SAME)


@pytest.mark.slow
@needs_tf2onnx
def test_the_witness_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to_tflite.main([*SMALL, "--out", str(tmp_path)])
    assert "turned back" in capsys.readouterr().out
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".tflite", ".json"]


@pytest.mark.slow
@needs_tf2onnx
def test_a_fault_that_only_the_witness_sees_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tampered(path: Path) -> witness.Runtime:
        model = unpacked(path.read_bytes())
        largest = max((b for b in model.buffers if b.data is not None), key=lambda b: len(b.data))
        largest.data = (largest.data.view(np.float32) * np.float32(1.1)).view(np.uint8)
        content = path.read_bytes()
        path.write_bytes(packed(model))
        try:
            return honest(path)
        finally:
            path.write_bytes(content)

    honest = witness.turned_back
    # The manifest's sha256 is that of the file as it was; the witness opens what it wrote itself.
    monkeypatch.setattr(witness, "turned_back", tampered)
    with pytest.raises(CheckFailed, match="turned back into ONNX"):
        to_tflite.main([*SMALL, "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
