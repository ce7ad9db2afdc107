"""What a person sees in Chromium: decisions by microphone, offline, a sentence for all that cannot be.

The microphone is Chromium's fake device, which plays a recording.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from antispoof.audio import SAMPLE_RATE, load_audio
from antispoof.manifest import manifest_path
from export import embed
from tests.web.clips import CLIPS
from tests.web.page import WEB, browser

GOLDEN_TOLERANCE = 1e-4  # of golden scores, in float32; promised


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(1280, 900, "light"), (390, 844, "dark")], ids=["desktop", "phone"]
)
def test_the_page_decides_about_a_microphone(
    vendor: Path,
    detector: Path,
    recordings: dict[str, list[Path]],
    tmp_path: Path,
    kind: str,
    width: int,
    height: int,
    scheme: str,
) -> None:
    picture = tmp_path / "page.png"
    result = browser(
        "listen",
        detector,
        wav=recordings[kind][0],
        seconds=10,
        **{"width": width, "height": height, "scheme": scheme, "screenshot": picture},
    )
    assert (result["state"], result["decision"]) == (kind, f"Sounds {kind}")
    assert not result["overflow"]
    assert not result["problem"]
    assert not result["after"]["problem"]
    assert "not enough speech" in {word["status"] for word in result["words"]}
    assert picture.stat().st_size > 10_000


@pytest.mark.slow
def test_the_page_works_without_a_server(
    vendor: Path, detector: Path, recordings: dict[str, list[Path]]
) -> None:
    result = browser("goOffline", detector, files=[recordings["synthetic"][0]])
    assert result["decision"] == "Sounds synthetic"
    assert result["isolated"]  # the headers are kept with the files


@pytest.mark.slow
def test_the_worker_that_keeps_the_page_harms_nothing(vendor: Path, detector: Path) -> None:
    result = browser("shareTheOrigin", detector)
    assert "of-another-page" in result["kept"]
    assert result["canListen"]  # out of its cache while the server was out of order, and without room for one
    assert not result["problem"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "task", "sentence"),
    [
        ("refuse", {"refuse": True}, "was refused; allow it"),
        ("refuse", {}, "There is no microphone"),
        ("lackWebAssembly", {}, "has no WebAssembly"),
        ("lackAFile", {"lacking": "vendor/ed25519.js"}, "Something went wrong here: Failed to fetch"),
        ("lackAFile", {"lacking": "page/measure.js"}, "A part of this page is missing"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    vendor: Path, detector: Path, scenario: str, task: dict[str, Any], sentence: str
) -> None:
    shown = browser(scenario, detector, **task)["problem"]
    assert sentence in shown
    assert shown.count("Something went wrong") <= 1


@pytest.mark.slow
@pytest.mark.parametrize("file", ["fscnn.onnx", "fscnn.onnx.manifest.json", "fscnn.onnx.golden.f32"])
def test_a_changed_detector_is_not_opened(vendor: Path, detector: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "detector"
    shutil.copytree(detector, folder)
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)
    shown = browser("load", folder)
    assert file in shown["problem"]
    assert not shown["canListen"]
    assert shown["runtime"] == "none yet"


@pytest.mark.slow
def test_a_microphone_taken_away_and_a_pause(
    vendor: Path, detector: Path, recordings: dict[str, list[Path]]
) -> None:
    lost = browser("loseTheMicrophone", detector, wav=recordings["genuine"][0])
    assert "is muted" in lost["muted"][0]
    assert not lost["muted"][1]
    assert lost["awake"] == [1, 0]  # a phone may sleep again
    assert "taken away" in lost["problem"]
    assert lost["canListen"]
    paused = browser("pauseAndResume", detector, wav=recordings["genuine"][0])
    assert paused["paused"] == paused["still"]
    assert not paused["problem"]
    assert len({word["turn"] for word in paused["words"]}) > 1  # what a pause cuts is not joined


@pytest.mark.slow
def test_what_was_never_decided_is_said_in_the_past_after_a_stop(
    vendor: Path, exported: Path, key: Path, recordings: dict[str, list[Path]], tmp_path: Path
) -> None:
    model, folder = shutil.copy(exported, tmp_path), tmp_path / "detector"
    facts = json.loads(manifest_path(exported).read_text())
    facts["calibration"]["scale"] = 1e-3  # every ratio within the margin
    manifest_path(model).write_text(json.dumps(facts))
    assert embed.main(["web", str(model), "--into", str(folder), "--key", str(key)]) == 0
    heard = browser("listen", folder, wav=recordings["genuine"][0], seconds=8)
    assert (heard["decision"], heard["after"]["decision"]) == ("Undecided yet", "Undecided")
    assert "it stayed on no side" in heard["after"]["detail"]


@pytest.mark.slow
def test_a_recording_with_nan_is_refused(vendor: Path, detector: Path, shared: Path, tmp_path: Path) -> None:
    samples = load_audio(shared / "audio" / CLIPS["genuine"][0]).copy()
    samples[len(samples) // 2] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "loud.wav", 32_768 * np.nan_to_num(samples), SAMPLE_RATE, subtype="FLOAT")
    nan, loud = browser("hearFiles", detector, files=[tmp_path / "nan.wav", tmp_path / "loud.wav"])["files"]
    assert nan["problem"] == "nan.wav holds samples that are NaN or infinite."
    assert "loud.wav has a peak of" in loud["problem"]
    assert not nan["words"]


@pytest.mark.slow
def test_a_runtime_that_fails_is_opened_anew(
    vendor: Path, detector: Path, recordings: dict[str, list[Path]]
) -> None:
    result = browser("loseTheRuntime", detector, wav=recordings["genuine"][0])
    assert "lost its GPU" in result["lost"]
    assert not result["problem"]
    assert "scored" in {word["status"] for word in result["words"]}


@pytest.mark.slow
def test_a_recording_of_both_kinds_is_not_judged_by_its_end(
    vendor: Path, detector: Path, recordings: dict[str, list[Path]], tmp_path: Path
) -> None:
    genuine, synthetic = (soundfile.read(recordings[kind][0], dtype="int16")[0] for kind in CLIPS)
    both = np.concatenate([np.tile(synthetic, 3), np.tile(genuine, 3)])
    long = tmp_path / f"{'a_name_without_any_space_' * 5}.wav"
    soundfile.write(long, both, SAMPLE_RATE)
    (heard,) = browser("hearFiles", detector, files=[long], width=360)["files"]
    assert heard["decision"] == "Sounds synthetic in part"
    assert not heard["overflow"]
    last = heard["words"][-1]  # in the unit of the thresholds, as the average beside it
    assert heard["row"][1:4] == ["genuine", f"{last['llr']:+.2f}", f"{last['smoothed']:+.2f}"]
    soundfile.write(long, np.tile(both, 60), SAMPLE_RATE)
    stopped = browser("stopAFile", detector, files=[long])
    assert "up to 0:" in stopped["detail"]
    assert not stopped["problem"]


@pytest.mark.slow
def test_the_readmes_code_runs(vendor: Path, detector: Path, shared: Path) -> None:
    (snippet,) = re.findall(r"```js\n(.*?)```", (WEB / "README.md").read_text(), re.DOTALL)
    clip = load_audio(shared / "audio" / CLIPS["synthetic"][0])
    at_48k = soxr.resample(clip, SAMPLE_RATE, 48_000).tolist()
    words = browser("runSnippet", detector, snippet=snippet, samples=at_48k)["words"]
    assert words[-1][0] == "spoof"


@pytest.mark.slow
def test_webgpu_gives_the_golden_scores(tmp_path: Path, vendor: Path, exported: Path, key: Path) -> None:
    """On SwiftShader, a GPU in software: what it computes is checked, what it takes is nobody's time."""
    from export import to_tflite

    assert to_tflite.main(["--out", str(tmp_path)]) == 0
    folder = tmp_path / "detector"
    files = [str(exported), str(tmp_path / "fscnn.tflite")]
    assert embed.main(["web", *files, "--into", str(folder), "--key", str(key)]) == 0
    outcomes = browser("useTheGpu", folder, webgpu=True)["outcomes"]
    for runtime in ("ort-webgpu", "litert-webgpu"):
        assert outcomes[runtime].get("max_difference", math.inf) <= GOLDEN_TOLERANCE, outcomes[runtime]
