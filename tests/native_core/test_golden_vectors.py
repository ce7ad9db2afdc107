"""The golden vectors: the same events to the bit, in this process, sanitized, on ARM and in WebAssembly."""

from __future__ import annotations

import json
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.native import library as native
from runtimes.native_core import Event, Judge, Rules, Stream, StreamConfig, resample
from tests.native_core.makefile import make

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FACTS = json.loads((GOLDEN / "core.json").read_text())
CASES = {case["name"]: case for case in FACTS["cases"]}
CHUNKS = (1, 7, 441, 4_096, 100_000)


def pcm_of(case: dict[str, Any]) -> np.ndarray:
    samples = np.fromfile(GOLDEN / case["pcm"], "<i2").astype(np.int16)
    channels = case["config"].get("channels", 1)
    return samples if channels == 1 else samples.reshape(-1, channels)


def play(case: dict[str, Any], chunk: int) -> list[str]:
    """The events as tools/replay prints them."""
    stream, judge = Stream(StreamConfig(**case["config"])), Judge(Rules(**case["rules"]))
    pcm, lines = pcm_of(case), []
    for _ in range(case["repeat"]):
        for start in range(0, len(pcm), chunk):
            lines += [line(event, judge) for event in stream.feed(pcm[start : start + chunk])]
        if case["lose"]:
            lines += [line(event, judge) for event in stream.gap(case["lose"])]
    return lines + [line(event, judge) for event in stream.finish()]


def line(event: Event, judge: Judge) -> str:
    numbers = (
        event.kind,
        event.samples,
        event.start,
        event.end,
        event.speech,
        event.turn,
        event.position,
    )
    text = " ".join(map(str, map(int, numbers)))
    if event.window is None:
        return text
    crc = native_crc(event.window)
    verdict = judge.hear((crc % 2001 - 1000) / 250, event.end)
    return f"{text} {crc} {verdict.smoothed!r} {int(verdict.decision)} {verdict.since}"


def native_crc(window: np.ndarray) -> int:
    return zlib.crc32(window.astype("<f4").tobytes())


def golden_lines(case: dict[str, Any]) -> list[str]:
    lines = []
    for e in case["events"]:
        kind = {"window": 1, "not enough": 2}[e["kind"]]
        numbers = (kind, e["samples"], e["start"], e["end"], e["speech"], e["turn"], e["position"])
        text = " ".join(map(str, numbers))
        if kind == 1:
            decision = ("undecided", "bonafide", "spoof").index(e["decision"])
            text += f" {e['crc32']} {e['smoothed']!r} {decision} {e['since']}"
        lines.append(text)
    return lines


def normal(text: str) -> list[str]:
    """Lines of replay with its numbers written as Python writes them."""
    lines = []
    for row in text.splitlines():
        words = row.split()
        if len(words) > 8:
            words[8] = repr(float(words[8]))
        lines.append(" ".join(words))
    return lines


@pytest.mark.parametrize("name", CASES)
def test_golden_events_however_the_samples_come(name: str) -> None:
    case = CASES[name]
    assert golden_lines(case), "an empty case checks nothing"
    for chunk in CHUNKS[1:]:
        assert play(case, chunk) == golden_lines(case)


@pytest.mark.parametrize("row", FACTS["resampled"], ids=lambda row: str(row["rate"]))
def test_golden_resampling(row: dict[str, Any]) -> None:
    pcm = np.fromfile(GOLDEN / row["pcm"], "<i2").astype(np.float32) / 32768
    y = resample(pcm, row["rate"])
    assert len(y) == row["samples"]
    assert [float(v) for v in y[:: FACTS["every"]]] == row["values"]
    assert native_crc(y) == row["crc32"]


def test_golden_cases_reach_every_kind_of_event() -> None:
    events = [event for case in CASES.values() for event in case["events"]]
    assert {event["kind"] for event in events} == {"window", "not enough"}
    assert {event.get("decision") for event in events} >= {"bonafide", "spoof", "undecided"}
    assert max(event["turn"] for event in events) >= 2


def replay(command: list[str], case: dict[str, Any]) -> list[str]:
    pcm = pcm_of(case)
    options = [f"{k}={int(v)}" for k, v in case["config"].items()]
    options += [f"{k}={v}" for k, v in case["rules"].items()] + [f"lose={case['lose']}"]
    chunk = len(pcm) if case["lose"] else 777
    stdin = pcm.tobytes() * case["repeat"]
    done = subprocess.run([*command, str(chunk), *options], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return normal(done.stdout.decode())


def test_golden_events_under_the_sanitizers(tmp_path: Path) -> None:
    program = make("replay-sanitized", tmp_path)
    for case in CASES.values():
        assert replay([str(program)], case) == golden_lines(case)


@pytest.mark.skipif(
    not shutil.which("aarch64-linux-gnu-gcc") or not shutil.which("qemu-aarch64-static"),
    reason="needs aarch64-linux-gnu-gcc and qemu-aarch64-static",
)
def test_golden_events_on_arm(tmp_path: Path) -> None:
    program = make("aarch64-linux/replay", tmp_path)
    for case in CASES.values():
        assert replay(["qemu-aarch64-static", str(program)], case) == golden_lines(case)


@pytest.mark.skipif(
    not shutil.which("node") or not shutil.which("clang") or not shutil.which("wasm-ld"),
    reason="needs node, clang and wasm-ld",
)
def test_golden_events_in_webassembly(tmp_path: Path) -> None:
    module = make("wasm32/spoof_core.wasm", tmp_path)
    script = Path(native.SOURCES) / "tools" / "replay.mjs"
    for case in CASES.values():
        assert replay(["node", str(script), str(module)], case) == golden_lines(case)
