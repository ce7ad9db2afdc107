"""Writes the golden vectors that the core must reproduce in every language: ``python tests/golden/make.py``.

``core.json`` lists cases. Each names a file of raw little-endian 16-bit samples beside it, how the core is
set up, and all events in order; each window is given by the CRC-32 of its float32 samples, which must agree
to the bit. No detector is needed: the score of a window is ``(crc % 2001 - 1000) / 250``, and smoothed LLR,
decision and its time follow from that. ``resampled`` gives what each file becomes at 16 kHz: its length,
CRC-32 and every 499th sample. ``bounds.json``, written by hand, says which calibrations and thresholds a
manifest may hold, to every reader of one.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from antispoof.audio import SAMPLE_RATE
from antispoof.outputs import write_whole
from antispoof.speechlike import speech_like
from runtimes.native_core import Event, Judge, Kind, Rules, Stream, StreamConfig, resample

FOLDER = Path(__file__).resolve().parent
EVERY = 499
SHORT = {"window": 12_000, "hop": 3_000, "first": 6_000, "min_speech": 4_000}  # so that short files say much
SHORT_GATE = {**SHORT, "lead_in": 800, "hang_over": 1_600, "pause": 4_000}


@dataclass(frozen=True)
class Case:
    """One run of the core: samples, how often they are played, what is lost after each time, settings."""

    name: str
    pcm: str
    config: dict[str, Any]
    rules: dict[str, Any] = field(default_factory=dict)
    repeat: int = 1
    lose: int = 0


CASES = (
    Case("whole windows", "speech-16000.pcm", {"gate": False}, repeat=3),
    Case("short clip, repeated", "speech-16000.pcm", {"gate": False, "first": 64_600}),
    Case("gate, turns", "turns-16000.pcm", SHORT_GATE, {"time_constant": 6_000, "min_duration": 3_000}),
    Case("stereo", "stereo-16000.pcm", {**SHORT, "channels": 2, "gate": False}),
    Case("losses", "speech-16000.pcm", SHORT_GATE, {"enter": -0.5, "exit": 0.5}, repeat=3, lose=1_234),
    Case(
        "losses at 44.1 kHz", "speech-44100.pcm", {**SHORT_GATE, "sample_rate": 44_100}, repeat=3, lose=4_001
    ),
    *(
        Case(
            f"from {rate} Hz",
            f"speech-{rate}.pcm",
            {**SHORT, "sample_rate": rate, "gate": False},
            {"scale": 0.8, "offset": -0.3, "time_constant": 4_000.0},
        )
        for rate in (8_000, 11_025, 22_050, 24_000, 44_100, 48_000)
    ),
)


def signals() -> dict[str, np.ndarray]:
    """Returns the samples of each file, int16 ``(frames,)`` or ``(frames, 2)``."""
    speech = speech_like(11, 32_000)
    pause = np.zeros(9_000, np.float32)
    noise = 1e-3 * np.random.default_rng(5).standard_normal(2 * 9_000 + 36_000).astype(np.float32)
    turns = np.concatenate([pause, speech_like(12, 24_000), pause, speech_like(13, 12_000)]) + noise
    files = {
        "speech-16000.pcm": speech,
        "turns-16000.pcm": turns,
        "stereo-16000.pcm": np.stack([speech[:16_000], speech_like(14, 16_000)], axis=1),
    }
    for rate in (8_000, 11_025, 22_050, 24_000, 44_100, 48_000):
        files[f"speech-{rate}.pcm"] = soxr.resample(speech[:16_000], SAMPLE_RATE, rate, quality="VHQ")
    return {name: np.round(x * 32767).clip(-32768, 32767).astype("<i2") for name, x in files.items()}


def play(case: Case, pcm: np.ndarray, chunk: int = 1_000) -> list[dict[str, Any]]:
    """Returns what the core says, in the words of the JSON."""
    stream, judge = Stream(StreamConfig(**case.config)), Judge(Rules(**case.rules))
    events: list[Event] = []
    for _ in range(case.repeat):
        for start in range(0, len(pcm), chunk):
            events.extend(stream.feed(pcm[start : start + chunk]))
        if case.lose:
            events.extend(stream.gap(case.lose))
    return [describe(event, judge) for event in [*events, *stream.finish()]]


def describe(event: Event, judge: Judge) -> dict[str, Any]:
    """Returns an event as the JSON has it, after the judge heard its score."""
    told = {name: value for name, value in asdict(event).items() if name != "window"}
    told["kind"] = "window" if event.kind is Kind.WINDOW else "not enough"
    if event.window is None:
        return told
    crc = zlib.crc32(event.window.astype("<f4").tobytes())
    verdict = judge.hear((crc % 2001 - 1000) / 250, event.end)
    return {
        **told,
        "crc32": crc,
        "smoothed": verdict.smoothed,
        "decision": verdict.decision.name.lower(),
        "since": verdict.since,
    }


def golden(files: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns everything that ``core.json`` holds."""
    resampled = []
    for name, pcm in files.items():
        rate = int(name.split("-")[1].removesuffix(".pcm"))
        if rate == SAMPLE_RATE:
            continue
        y = resample(pcm.astype(np.float32) / 32768, rate)
        crc = zlib.crc32(y.astype("<f4").tobytes())
        values = [float(v) for v in y[::EVERY]]
        resampled.append({"pcm": name, "rate": rate, "samples": len(y), "crc32": crc, "values": values})
    cases = [{**asdict(case), "events": play(case, files[case.pcm])} for case in CASES]
    return {"schema": 1, "every": EVERY, "resampled": resampled, "cases": cases}


def to_json(content: dict[str, Any]) -> str:
    """Returns JSON with one event to a line."""
    text = json.dumps(content, indent=1, sort_keys=True)
    for event in (event for case in content["cases"] for event in case["events"]):
        long = json.dumps(event, indent=1, sort_keys=True).replace("\n", "\n    ")
        text = text.replace(long, json.dumps(event, sort_keys=True))
    return text + "\n"


def main() -> None:
    """Writes the files."""
    files = signals()
    texts = {"core.json": to_json(golden(files)).encode()} | {n: x.tobytes() for n, x in files.items()}
    for name, content in texts.items():
        write_whole(FOLDER / name, content)


if __name__ == "__main__":
    main()
