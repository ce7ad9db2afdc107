"""One clip has one score: in Python, in the page's engine in node, and in the page in Chromium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from antispoof.audio import CLIP_SAMPLES, SAMPLE_RATE, fit_length
from antispoof.manifest_reader import read_manifest
from quantize import onnx_int8
from runtimes import load
from runtimes.native_core import Judge, Stream
from runtimes.stream import rules_of, stream_config
from tests.web.clips import as_pcm16, real_clips
from tests.web.page import WEB, browser, node

# Of every window's score beside ONNX Runtime's on x86, at every rate of the microphone; promised.
WEB_TOLERANCE = dict.fromkeys((SAMPLE_RATE, 44_100, 48_000, 8_000), 1e-4)
RESAMPLED_TOLERANCE = 1e-3  # of scores of resampled audio, beside soxr's; promised


@pytest.fixture(scope="session")
def integers(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Path:
    """The bundled detector in the INT8 that is the same everywhere."""
    folder = tmp_path_factory.mktemp("web-int8")
    assert onnx_int8.main([str(exported), "--recipe", "w8a8-rr-f64", "--out", str(folder)]) == 0
    return folder / "fscnn.w8a8-rr-f64.onnx"


def words_of(core: Path, folder: Path, rate: int, clips: list[np.ndarray], tmp_path: Path) -> list[list[Any]]:
    """Returns what the page's engine says of clips in int16, with ONNX Runtime Web in node."""
    files = [tmp_path / f"{i}.pcm" for i in range(len(clips))]
    for file, clip in zip(files, clips, strict=True):
        clip.astype("<i2").tofile(file)
    return [json.loads(line) for line in node("listen.mjs", core, folder, rate, *files).splitlines()]


def python_words(model: Path, rate: int, clip: np.ndarray) -> list[dict[str, Any]]:
    """Returns what runtimes/stream.py makes of it."""
    runtime = load(model, threads=1)
    rules = rules_of(runtime.manifest, None, 3.0)
    assert rules is not None
    stream, judge = Stream(stream_config(rate, 1, CLIP_SAMPLES, 8_000, True)), Judge(rules)
    words = []
    for event in (*stream.feed(clip), *stream.finish()):
        word: dict[str, Any] = {"start": event.start, "end": event.end, "speech": event.speech}
        if event.window is not None:
            score = float(runtime.score(event.window[None])[0])
            verdict = judge.hear(score, event.end)
            word |= {"score": score, "smoothed": verdict.smoothed, "decision": verdict.decision.name.lower()}
        words.append(word)
    return words


def assert_same_words(ours: list[dict[str, Any]], pythons: list[dict[str, Any]], tolerance: float) -> None:
    assert len(ours) == len(pythons)
    for one, other in zip(ours, pythons, strict=True):
        assert all(one[name] == other[name] for name in ("start", "end", "speech"))
        assert ("score" in one) == ("score" in other)
        if "score" in one:
            assert one["score"] == pytest.approx(other["score"], abs=tolerance)
            assert one["decision"] == other["decision"]


def at_rate(clips: dict[str, np.ndarray], rate: int) -> list[np.ndarray]:
    """Returns clips as a device of another rate would have recorded them, in int16."""
    if rate == SAMPLE_RATE:
        return [as_pcm16(clip) for clip in clips.values()]
    return [as_pcm16(soxr.resample(clip, SAMPLE_RATE, rate, "VHQ")) for clip in clips.values()]


@pytest.mark.parametrize(
    "rate", [pytest.param(rate, marks=[pytest.mark.slow] * (rate != SAMPLE_RATE)) for rate in WEB_TOLERANCE]
)
def test_the_engine_in_node_hears_what_python_hears(
    vendor: Path, core: Path, detector: Path, shared: Path, tmp_path: Path, rate: int
) -> None:
    clips = at_rate(real_clips(shared), rate)
    for ours, clip in zip(words_of(core, detector, rate, clips, tmp_path), clips, strict=True):
        assert_same_words(ours, python_words(detector / "fscnn.onnx", rate, clip), WEB_TOLERANCE[rate])


def test_the_page_decides_about_recordings_as_python_does(
    vendor: Path, detector: Path, recordings: dict[str, list[Path]]
) -> None:
    files = {paths[0]: kind for kind, paths in recordings.items()}
    result = browser("hearFiles", detector, files=list(files))
    for (file, kind), shown in zip(files.items(), result["files"], strict=True):
        assert shown["state"] == kind, shown["detail"]
        assert f"Sounds {kind}" == shown["decision"]
        pcm, _ = soundfile.read(file, dtype="int16")
        expected = python_words(detector / "fscnn.onnx", SAMPLE_RATE, pcm)
        assert_same_words(shown["words"], expected, WEB_TOLERANCE[SAMPLE_RATE])
    last = result["files"][-1]
    assert last["isolated"]
    assert "signature and sha256" in last["checked"]
    assert "fscnn, version 1" in last["model"]
    assert read_manifest(detector / "fscnn.onnx").licence in last["licence"]
    assert "ms" in last["latency"]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_resampled_by_the_page_scores_as_resampled_by_soxr(
    vendor: Path, core: Path, detector: Path, shared: Path, tmp_path: Path, rate: int
) -> None:
    """The windows of the page beside the same stretches resampled by soxr, in the same runtime.

    At 8 kHz too the reference is soxr's HQ on the same 8 kHz samples: what lies above 4 kHz is gone for both,
    and the edge of the band is what they can differ in. (VHQ, which keeps more of it, is 0.02 away from HQ.)
    """
    sources = at_rate(real_clips(shared), rate)
    windows, scores = [], []
    for words, source in zip(words_of(core, detector, rate, sources, tmp_path), sources, strict=True):
        heard = soxr.resample(source.astype(np.float32) / 32_768, rate, SAMPLE_RATE, "HQ").astype(np.float32)
        for word in words:
            if "score" in word and word["end"] - word["start"] == word["samples"]:  # nothing was left out
                windows.append(fit_length(heard[word["start"] : word["end"]]))
                scores.append(word["score"])
    assert len(scores) >= 8
    references = web_outputs(detector / "fscnn.onnx", np.stack(windows), tmp_path)[:, 0]
    assert np.abs(np.array(scores) - references).max() < RESAMPLED_TOLERANCE


SCORES = """
import * as ort from {ort};
import {{ readFileSync }} from "node:fs";
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync({model}), {{ executionProviders: ["wasm"] }});
const bytes = new Uint8Array(readFileSync({clips}));
const size = {size} * {dims}.reduce((a, b) => a * b);
for (let at = 0; at < bytes.length; at += size) {{
  const data = new Float32Array(bytes.slice(at, at + size).buffer);
  const results = await session.run({{ [session.inputNames[0]]: new ort.Tensor("float32", data, {dims}) }});
  console.log(JSON.stringify([...results[session.outputNames[0]].data]));
}}
process.exit(0);
"""


def web_outputs(model: Path, clips: np.ndarray, folder: Path) -> np.ndarray:
    """Returns the first output of a file in ONNX Runtime Web, for each of ``clips (clips, ...)``."""
    script = folder / "scores.mjs"
    clips.tofile(folder / "clips.raw")
    script.write_text(
        SCORES.format(
            ort=json.dumps((WEB / "vendor/onnxruntime-web/ort.wasm.min.mjs").as_uri()),
            model=json.dumps(str(model)),
            clips=json.dumps(str(folder / "clips.raw")),
            dims=[1, *clips.shape[2:]] if clips.ndim > 2 else [1, *clips.shape[1:]],
            size=clips.dtype.itemsize,
        )
    )
    return np.array([json.loads(line) for line in node(str(script)).splitlines()])


@pytest.mark.slow
def test_integers_give_the_very_same_score(
    vendor: Path, integers: Path, shared: Path, tmp_path: Path
) -> None:
    clips = np.stack([fit_length(clip) for clip in real_clips(shared).values()])
    found = web_outputs(integers, clips, tmp_path)[:, 0]
    assert np.array_equal(found.astype(np.float32), load(integers).score(clips))
