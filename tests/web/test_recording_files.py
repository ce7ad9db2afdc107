"""How the page reads a recording: at the rate that its file says, integers as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.web.page import script


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_the_rate_of_a_recording(tmp_path: Path, kind: str, rate: int) -> None:
    file = tmp_path / f"clip.{kind}"
    subtype = {"wav": "FLOAT", "flac": "PCM_24"}.get(kind)
    soundfile.write(file, 0.1 * np.sin(np.arange(rate)), rate, subtype=subtype)
    code = "import { readFileSync } from 'node:fs'; console.log(rateOf(readFileSync(process.argv[1])))"
    assert script({"page/recording.js": "{ rateOf }"}, code, file) == rate


@pytest.mark.parametrize(("rate", "own"), [(7_999, False), (8_000, True), (192_000, True), (384_000, False)])
def test_a_rate_that_the_core_does_not_take_is_the_browsers(tmp_path: Path, rate: int, own: bool) -> None:
    soundfile.write(tmp_path / "clip.wav", np.zeros(100, np.int16), rate)
    code = "import { readFileSync } from 'node:fs'; console.log(!!readWav16(readFileSync(process.argv[1])))"
    assert script({"page/recording.js": "{ readWav16 }"}, code, tmp_path / "clip.wav") is own


def test_an_hour_of_integers_is_read_at_once() -> None:
    code = """
const hour = new Uint8Array(44 + 2 * 16000 * 3600), head = new DataView(hour.buffer);
const names = [[0, "RIFF"], [8, "WAVEfmt "], [36, "data"]];
for (const [at, name] of names) hour.set(new TextEncoder().encode(name), at);
for (const [at, value] of [[16, 16], [24, 16000], [40, hour.length - 44]]) head.setUint32(at, value, true);
for (const [at, value] of [[20, 1], [22, 1], [34, 16]]) head.setUint16(at, value, true);
const start = performance.now(), { seconds } = readWav16(hour);
console.log(JSON.stringify({ seconds, ms: performance.now() - start }));
"""
    read = script({"page/recording.js": "{ readWav16 }"}, code)
    assert read["seconds"] == 3600
    assert read["ms"] < 1500  # by one copy some 50; sample by sample the page stood still for 6 s


def test_integers_of_a_recording_stay_as_they_are(tmp_path: Path) -> None:
    pcm = np.array([[-32_768, 32_767], [1, -1], [0, 12_345]], np.int16)
    soundfile.write(tmp_path / "clip.wav", pcm, 44_100)
    code = """
import { readFileSync } from "node:fs";
const { samples, ...rest } = readWav16(readFileSync(process.argv[1]));
console.log(JSON.stringify({ samples: [...samples], ...rest }));
"""
    read = script({"page/recording.js": "{ readWav16 }"}, code, tmp_path / "clip.wav")
    assert read == {"samples": pcm.ravel().tolist(), "rate": 44_100, "channels": 2, "seconds": 3 / 44_100}


@pytest.mark.parametrize(
    ("value", "words"),
    [("NaN", "NaN or infinite"), ("-Infinity", "NaN or infinite"), ("-32768", "peak of 32768")],
)
def test_floats_that_are_no_speech_are_refused_as_score_py_refuses_them(value: str, words: str) -> None:
    code = f"""
let told = null;
try {{
  checkPeak(Float32Array.of(0.5, {value}, -0.5), "a.wav");
}} catch (error) {{
  told = error.message;
}}
checkPeak(Float32Array.of(0.5, -1.5), "b.wav");
console.log(JSON.stringify(told));
"""
    told = script({"page/recording.js": "{ checkPeak }"}, code)
    assert told.startswith("a.wav h")
    assert words in told
