"""The native streaming core in Python: `Stream` turns samples into windows, `Judge` scores into decisions.

The rules are those of ``native/spoof_core.h``, which Java, Swift and the browser compile too: one clip has
one score. Here the machine's own C compiler builds it on first use (see `runtimes.native.library`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum

import numpy as np

from antispoof.audio import CLIP_SAMPLES, SAMPLE_RATE
from antispoof.errors import UserError
from runtimes.native.library import CConfig, CEvent, CJudge, CRules, library

ALIGNMENT = 16
MAX_CHANNELS = 8  # SPOOF_MAX_CHANNELS


class Kind(IntEnum):
    """What an event says."""

    WINDOW = 1
    NOT_ENOUGH = 2


class Decision(IntEnum):
    """What is decided so far."""

    UNDECIDED = 0
    BONAFIDE = 1
    SPOOF = 2


@dataclass(frozen=True)
class StreamConfig:
    """How audio becomes windows; lengths are samples at 16 kHz (see ``spoof_config`` in the header)."""

    sample_rate: int = SAMPLE_RATE
    channels: int = 1
    window: int = CLIP_SAMPLES
    hop: int = SAMPLE_RATE // 2
    first: int = SAMPLE_RATE
    min_speech: int = SAMPLE_RATE
    gate: bool = True
    lead_in: int = SAMPLE_RATE // 5
    hang_over: int = SAMPLE_RATE * 3 // 10
    pause: int = 2 * SAMPLE_RATE
    voice_margin_db: float = 9.0
    voice_least_db: float = -80.0


@dataclass(frozen=True)
class Rules:
    """How scores become decisions (see ``spoof_rules`` in the header); durations are samples at 16 kHz."""

    scale: float = 1.0
    offset: float = 0.0
    time_constant: float = 3.0 * SAMPLE_RATE
    enter: float = 0.0
    exit: float = 0.0
    min_duration: int = 0


@dataclass(frozen=True)
class Event:
    """What the stream found; times are samples at 16 kHz since it began.

    Attributes:
        kind: A window, or word that there is not enough speech for one.
        samples: How many samples of the turn are in the window, before they were repeated to fill it.
        start: When the first of them was heard.
        end: When the last was heard, plus one.
        speech: How many of them are speech.
        turn: How many turns ended before this one.
        position: Samples of the turn before the window.
        window: float32 ``(window,)``, where the kind is `Kind.WINDOW`.
    """

    kind: Kind
    samples: int
    start: int
    end: int
    speech: int
    turn: int
    position: int
    window: np.ndarray | None


@dataclass(frozen=True)
class Verdict:
    """What the judge makes of the scores: LLR of the last, average of all, the decision and since when."""

    llr: float
    smoothed: float
    decision: Decision
    since: int
    changed: bool


class Stream:
    """Audio in, events out.

    ``for event in stream.feed(samples): ...`` until the source ends, then once more with ``stream.finish()``.
    Whatever the chunks, the events are the same to the last bit.
    """

    def __init__(self, config: StreamConfig) -> None:
        """Makes a stream.

        Raises:
            UserError: The configuration is not legal, or the core cannot be built.
        """
        self.config = config
        self._library = library()
        self._c_config = CConfig(**asdict(config))
        size = self._library.spoof_stream_size(ctypes.byref(self._c_config))
        if not size:
            raise UserError(f"the streaming core refuses {config}; native/spoof_core.h has the limits")
        self._memory, address = _aligned(size)
        self._stream = self._library.spoof_stream_init(address, size, ctypes.byref(self._c_config))
        self._window = np.empty(config.window, np.float32)
        self._finished = False

    @property
    def time(self) -> int:
        """Samples at 16 kHz heard since the stream began, gaps included."""
        return int(self._library.spoof_stream_time(self._stream))

    @property
    def power(self) -> float:
        """Mean power of the last 10 ms, for a level meter; 1 is a square wave of full scale."""
        return float(self._library.spoof_stream_power(self._stream))

    def feed(self, samples: np.ndarray) -> Iterator[Event]:
        """Yields what is found in ``samples (frames,)`` or ``(frames, channels)``, int16 or float32."""
        pushes = {
            np.dtype(np.int16): self._library.spoof_stream_push_pcm16,
            np.dtype(np.float32): self._library.spoof_stream_push_float,
        }
        if samples.dtype not in pushes or samples.shape[1:] not in {(), (self.config.channels,)}:
            raise ValueError(f"int16 or float32 of {self.config.channels} channels, not {samples.dtype}")
        if samples.ndim == 1 and self.config.channels != 1:
            raise ValueError(f"samples must be (frames, {self.config.channels}), not {samples.shape}")
        if self._finished:
            raise ValueError("the stream is finished")
        samples, done = np.ascontiguousarray(samples), 0
        while done < len(samples):
            done += pushes[samples.dtype](self._stream, samples[done:].ctypes.data, len(samples) - done)
            yield from self._events()

    def gap(self, frames: int) -> Iterator[Event]:
        """Says that ``frames`` of input were lost; yields what the turn that ends there still says."""
        if self._library.spoof_stream_gap(self._stream, frames) != 1:
            raise ValueError(f"a gap of {frames} frames cannot be told here")
        yield from self._events()

    def finish(self) -> Iterator[Event]:
        """Says that no input follows; yields the last events."""
        self._finished = True
        self._library.spoof_stream_finish(self._stream)
        yield from self._events()

    def _events(self) -> Iterator[Event]:
        found = CEvent()
        address = self._window.ctypes.data
        while self._library.spoof_stream_next(self._stream, address, ctypes.byref(found)):
            values = {name: getattr(found, name) for name, *_ in CEvent._fields_}
            kind = Kind(values.pop("kind"))
            yield Event(kind, window=self._window.copy() if kind is Kind.WINDOW else None, **values)


class Judge:
    """Scores in, decisions out: calibrated, averaged over time, with a threshold for each direction."""

    def __init__(self, rules: Rules) -> None:
        """Makes an undecided judge.

        Raises:
            UserError: The rules are not legal, or the core cannot be built.
        """
        self._library, self._judge, self._rules = library(), CJudge(), CRules(**asdict(rules))
        if not self._library.spoof_judge_init(ctypes.byref(self._judge), ctypes.byref(self._rules)):
            raise UserError(f"the streaming core refuses {rules}; native/spoof_core.h has the limits")

    def hear(self, score: float, end: int) -> Verdict:
        """Takes the score of the window that ended at ``end`` and says what follows."""
        judge = self._judge
        if not self._library.spoof_judge_update(ctypes.byref(judge), ctypes.byref(self._rules), score, end):
            raise ValueError(f"a score of {score} for a window that ended at {end} cannot be judged")
        return Verdict(judge.llr, judge.smoothed, Decision(judge.decision), judge.since, bool(judge.changed))


def resamples_from(rate: int) -> bool:
    """Says whether the core takes this sample rate."""
    return bool(library().spoof_resampler_size(rate))


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Returns float32 ``samples (frames,)`` of ``rate`` Hz at 16 kHz, as the stream would hear them.

    Raises:
        UserError: The rate is not supported.
    """
    core = library()
    size = core.spoof_resampler_size(rate)
    if not size:
        raise UserError(f"the streaming core cannot resample {rate} Hz; 8, 11.025, 16 ... 48, 96 kHz it can")
    memory, address = _aligned(size)
    resampler = core.spoof_resampler_init(address, size, rate)
    samples, done, given = np.ascontiguousarray(samples, np.float32), 0, 0
    out = np.empty(len(samples) * SAMPLE_RATE // rate + 1, np.float32)
    while done < len(samples):
        done += core.spoof_resampler_push(resampler, samples[done:].ctypes.data, len(samples) - done)
        given += core.spoof_resampler_pull(resampler, out[given:].ctypes.data, len(out) - given)
    core.spoof_resampler_end(resampler)
    given += core.spoof_resampler_pull(resampler, out[given:].ctypes.data, len(out) - given)
    del memory  # it had to live until here
    return out[:given]


def _aligned(size: int) -> tuple[np.ndarray, int]:
    """Returns memory of ``size`` bytes to keep, and the address in it that is aligned."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    return memory, -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT
