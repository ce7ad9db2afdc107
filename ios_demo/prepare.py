"""Makes what check.sh tests the Swift package on, all of it generated: ``prepare.py FOLDER``.

``detector``      the bundled detector as a Core ML package, signed by a key made for this
``onnx``          the same as an ONNX file and as an INT8 one with reduced range
``recording.pcm`` speech-like turns, 48 kHz, stereo, 16 bits; ``recording.json`` says so
``*.jsonl``       what runtimes/stream.py says of the recording with each ONNX file
``libonnxruntime.so``  what said so

All have a made-up calibration and threshold, so that the recording's decision turns.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import run
from antispoof.manifest import Calibration, Threshold, manifest_path
from antispoof.manifest_reader import read_manifest
from antispoof.speechlike import speech_like
from export import embed, sign, to_coreml, to_onnx
from quantize import onnx_int8
from runtimes import stream

RATE = 48_000
PACKAGE = "fscnn.mlpackage"
ONNX = ("fscnn.onnx", "fscnn.w8a8-rr-f64.onnx")
# Around the scores that generated speech gets.
CALIBRATION = Calibration(4.0, -4.0, "made up for this test")
THRESHOLD = Threshold("eer", 1.0, "made up for this test")


def recording() -> np.ndarray:
    """Returns two turns with a pause between them, int16 ``(frames, 2)`` at 48 kHz."""
    silence = np.zeros(3 * SAMPLE_RATE, np.float32)
    loud, quiet = speech_like(21, 7 * SAMPLE_RATE), 0.1 * speech_like(22, 7 * SAMPLE_RATE)
    driven = 0.3 * np.tanh(8 * speech_like(23, 6 * SAMPLE_RATE))
    turns = np.concatenate([0.2 * silence, driven, silence, quiet, loud])
    turns += 1e-4 * np.random.default_rng(1).standard_normal(len(turns))
    wide = soxr.resample(turns, SAMPLE_RATE, RATE, quality="VHQ")
    both = np.stack([wide, 0.8 * np.roll(wide, 9)], axis=1)
    return np.round(both * 32767).clip(-32768, 32767).astype("<i2")


def export(folder: Path) -> None:
    """Writes the three files, with something to decide by."""
    for main in (to_onnx.main, to_coreml.main):
        main(["--model", "fscnn", "--out", str(folder)])
    onnx_int8.main([str(folder / ONNX[0]), "--recipe", "w8a8-rr-f64"])
    for name in (PACKAGE, *ONNX):
        manifest = replace(read_manifest(folder / name), calibration=CALIBRATION, thresholds=(THRESHOLD,))
        manifest_path(folder / name).write_text(manifest.to_json(), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Writes everything into the folder that the argument names."""
    folder = Path((sys.argv[1:] if argv is None else argv)[0])
    key, made = folder / "key.pem", folder / "made"
    sign.main(["new-key", str(key)])
    export(made)
    for place, names in (("detector", (PACKAGE,)), ("onnx", ONNX)):
        artifacts = [str(made / name) for name in names]
        embed.main(["ios", *artifacts, "--into", str(folder / place), "--key", str(key)])
    samples = recording()
    (folder / "recording.pcm").write_bytes(samples.tobytes())
    facts = {"rate": RATE, "channels": samples.shape[1]}
    (folder / "recording.json").write_text(json.dumps(facts), encoding="utf-8")
    soundfile.write(folder / "recording.wav", samples, RATE)
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    shutil.copyfile(library, folder / "libonnxruntime.so")
    for name in ONNX:
        lines = folder / f"{name}.jsonl"
        with lines.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            stream.main([str(folder / "onnx" / name), "--wav", str(folder / "recording.wav"), "--json"])
    return 0


if __name__ == "__main__":
    run(main)
