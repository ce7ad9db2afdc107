"""Windows of a stream: the audio itself however it comes, in turns, with no pause and no gap inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antispoof.audio import CLIP_SAMPLES, SAMPLE_RATE, fit_length
from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from runtimes.native_core import Event, Kind, Stream, StreamConfig


def events_of(stream: Stream, *chunks: np.ndarray) -> list[Event]:
    return [*(event for chunk in chunks for event in stream.feed(chunk)), *stream.finish()]


def same(a: list[Event], b: list[Event]) -> bool:
    def key(e: Event) -> tuple[Any, ...]:
        window = None if e.window is None else e.window.tobytes()
        return e.kind, e.samples, e.start, e.end, e.speech, e.turn, e.position, window

    return [key(e) for e in a] == [key(e) for e in b]


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 5_000), max_size=30),
    rate=st.sampled_from((8_000, 16_000, 44_100)),
    gate=st.booleans(),
    floats=st.booleans(),
    lost=st.integers(0, 3_000),
)
def test_chunks_do_not_matter(cuts: list[int], rate: int, gate: bool, floats: bool, lost: int) -> None:
    config = StreamConfig(rate, 1, 8_000, 2_187, 3_000, 2_000, gate, 800, 1_600, 4_000)
    x = np.concatenate([speech_like(21, 12_000), np.zeros(7_000, np.float32), speech_like(22, 9_000)])
    x = x if floats else (x * 32_767).astype(np.int16)
    half = len(x) // 2

    def run(pieces: Callable[[np.ndarray], list[np.ndarray]]) -> list[Event]:
        stream = Stream(config)
        events = [event for piece in pieces(x[:half]) for event in stream.feed(piece)]
        events += stream.gap(lost)
        return events + events_of(stream, *pieces(x[half:]))

    assert same(
        run(lambda part: [part]), run(lambda part: np.split(part, sorted({min(c, half) for c in cuts})))
    )


def test_windows_are_the_audio_itself() -> None:
    x = speech_like(1, 5 * SAMPLE_RATE)
    events = events_of(Stream(StreamConfig(gate=False, hop=8_000)), x)
    windows = [event for event in events if event.window is not None]
    assert [event.end for event in windows] == [*range(16_600, len(x) + 1, 8_000), len(x)]
    for event in windows:
        assert np.array_equal(event.window, fit_length(x[event.start : event.end]))
    # What files are scored by is one of them.
    assert any(np.array_equal(event.window, fit_length(x)) for event in windows)


@pytest.mark.parametrize("samples", [16_000, 20_001, 64_599, 64_600])
def test_a_clip_is_heard_as_its_file_would_be(samples: int) -> None:
    x = speech_like(2, samples)
    events = events_of(Stream(StreamConfig(gate=False, first=CLIP_SAMPLES)), x)
    (window,) = (event.window for event in events if event.kind is Kind.WINDOW)
    assert np.array_equal(window, fit_length(x))


def test_integers_and_channels() -> None:
    pcm = (speech_like(3, 20_000) * 32_767).astype(np.int16)
    pcm[:3] = (-32_768, 32_767, 1)
    stereo = np.stack([pcm, pcm // 3], axis=1)
    config = StreamConfig(gate=False, channels=2, first=CLIP_SAMPLES)
    (event,) = (e for e in events_of(Stream(config), stereo) if e.window is not None)
    expected = (stereo / 32_768).mean(axis=1).astype(np.float32)
    assert np.array_equal(event.window, fit_length(expected))


def test_under_a_second_of_speech_gets_no_window() -> None:
    x = speech_like(4, 15_999)
    events = events_of(Stream(StreamConfig(gate=False)), x)
    assert events
    assert {event.kind for event in events} == {Kind.NOT_ENOUGH}
    assert events[-1].end == len(x)


def test_silence_and_steady_noise_get_no_window() -> None:
    noise = 0.01 * np.random.default_rng(0).standard_normal(20 * SAMPLE_RATE).astype(np.float32)
    for x in (np.zeros(10 * SAMPLE_RATE, np.float32), 0.3 + noise):
        events = events_of(Stream(StreamConfig()), x)
        # The first seconds of noise may pass for speech: nothing quieter was heard yet.
        assert all(event.kind is Kind.NOT_ENOUGH for event in events if event.end > 5 * SAMPLE_RATE)


def test_a_long_pause_ends_a_turn_and_a_short_one_does_not() -> None:
    speech, pause = speech_like(5, 2 * SAMPLE_RATE), np.zeros(6 * SAMPLE_RATE, np.float32)
    for seconds, turns in ((1, {0}), (4, {0, 1})):
        x = np.concatenate([speech, pause[: seconds * SAMPLE_RATE], speech])
        windows = [e for e in events_of(Stream(StreamConfig()), x) if e.window is not None]
        assert {event.turn for event in windows} == turns
        for event in windows:
            assert event.speech >= SAMPLE_RATE
            assert event.end - event.start <= event.samples + seconds * SAMPLE_RATE


def test_a_gap_ends_the_turn_and_time_goes_on() -> None:
    x = speech_like(6, 3 * SAMPLE_RATE)
    stream = Stream(StreamConfig(sample_rate=SAMPLE_RATE, gate=False))
    before = [*stream.feed(x), *stream.gap(5 * SAMPLE_RATE)]
    assert stream.time == 8 * SAMPLE_RATE
    after = [e for e in events_of(stream, x) if e.window is not None]
    assert all(event.end <= 3 * SAMPLE_RATE for event in before)
    assert all(event.start >= 8 * SAMPLE_RATE and event.turn == 1 for event in after)
    assert np.array_equal(after[-1].window, fit_length(x))


def test_damaged_samples_are_a_gap() -> None:
    x = speech_like(7, 3 * SAMPLE_RATE)
    x[20_000:20_100] = np.nan
    x[20_100] = 1e30
    events = events_of(Stream(StreamConfig(gate=False)), x)
    assert all(np.isfinite(e.window).all() for e in events if e.window is not None)
    assert all(e.end <= 20_000 or e.start >= 20_101 for e in events if e.window is not None)
    assert max(event.turn for event in events) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate": 7_999},
        {"sample_rate": 16_001},
        {"channels": 0},
        {"window": 0},
        {"hop": 159},
        {"first": CLIP_SAMPLES + 1},
        {"min_speech": -1},
        {"voice_margin_db": math.nan},
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="refuses"):
        Stream(StreamConfig(**change))


def test_wrong_arrays_are_refused() -> None:
    stream = Stream(StreamConfig())
    with pytest.raises(ValueError, match="float64"):
        list(stream.feed(np.zeros(10)))
    with pytest.raises(ValueError, match="channels"):
        list(stream.feed(np.zeros((10, 2), np.int16)))
    list(stream.finish())
    with pytest.raises(ValueError, match="finished"):
        list(stream.feed(np.zeros(10, np.int16)))
