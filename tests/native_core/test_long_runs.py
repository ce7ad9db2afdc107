"""Hours of sound: no sample lost or doubled, no drift, and memory that does not grow."""

from __future__ import annotations

import time

import numpy as np
import pytest

from antispoof.audio import CLIP_SAMPLES, SAMPLE_RATE
from antispoof.speechlike import speech_like
from runtimes.native_core import Judge, Rules, Stream, StreamConfig


def listen(hours: float, hop: int) -> tuple[int, float]:
    """Plays a minute's speech for hours in random chunks, scored 1; returns windows and seconds."""
    minute = np.tile((speech_like(9, 20 * SAMPLE_RATE) * 32_767).astype(np.int16), 3)
    total, heard, windows, last_end = round(hours * 3_600) * SAMPLE_RATE, 0, 0, None
    random = np.random.default_rng(0)
    stream, judge = Stream(StreamConfig(gate=False, hop=hop)), Judge(Rules())
    started = time.process_time()
    while heard < total:
        at = heard % len(minute)
        chunk = minute[at : at + int(random.integers(1, 200_000))][: total - heard]
        heard += len(chunk)
        for event in stream.feed(chunk):
            if event.window is None:
                continue
            assert last_end is None or event.end == last_end + hop
            assert event.window[event.samples - 1] * 32_768 == minute[(event.end - 1) % len(minute)]
            last_end = event.end
            windows += 1
            judge.hear(1.0, event.end)
    assert stream.time == heard == total
    return windows, time.process_time() - started


def test_minutes_without_drift() -> None:
    windows, _ = listen(0.2, 8_000)
    assert windows == (720 * SAMPLE_RATE - 16_600) // 8_000 + 1


@pytest.mark.slow
def test_ten_hours_without_drift() -> None:
    import resource

    listen(0.02, SAMPLE_RATE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    windows, seconds = listen(10, SAMPLE_RATE)
    first = CLIP_SAMPLES - (CLIP_SAMPLES - SAMPLE_RATE) // SAMPLE_RATE * SAMPLE_RATE
    assert windows == (36_000 * SAMPLE_RATE - first) // SAMPLE_RATE + 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4_096  # KiB: it does not grow
    assert seconds < 60, "ten hours take about ten seconds of processor time"
