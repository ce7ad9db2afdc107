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
