"""Listens to a recording or a microphone and says, as it goes, whether the speech is genuine.

    python runtimes/stream.py out/fscnn.onnx --wav call.wav
    python runtimes/stream.py out/fscnn.onnx --microphone --hop 1
    python runtimes/stream.py out/fscnn.onnx --wav call.wav --json > call.jsonl
    python runtimes/stream.py out/fscnn.cached.json --wav call.wav --fast    # of to_onnx_cached.py

A line for each window of speech: the time at which it ended, its score, where the model's manifest holds a
calibration the log-likelihood ratio and its average over the last seconds, and the decision. Windows are a
hop of speech apart; what is no speech is left out (--no-gate: nothing is), and while a second of speech has
not come together, the line says "not enough speech". Speech shorter than a window is repeated, never padded.

The decision turns at the operating point of the manifest (--threshold NAME, default its first), with a margin
in either direction and only when the average stays beyond it for a while. Without thresholds and without a
calibration there are scores and no decisions. Ctrl-C ends with the summary that the end of the recording
brings too. The exit code is 1 where nothing could be scored, or where the source failed before its end.

A model exported in two halves (.cached.json) computes only what a window adds to the last, and its hop is
rounded to whole columns. It scores as the whole model does, or with --fast nearly so, at the least cost.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import EXIT_CHECK_FAILED, EXIT_DONE, UserError, run
from antispoof.manifest import Manifest
from runtimes.capture import Lost, Source, SourceFailed, open_microphone, open_recording
from runtimes.native_core import Decision, Event, Judge, Rules, Stream, StreamConfig, Verdict
from runtimes.score_table import table_of
from runtimes.stream_model import StreamModel, open_stream_model

HOP_SECONDS = 0.5
MIN_SPEECH_SECONDS = 1.0
SMOOTHING_SECONDS = 3.0
MARGIN = 0.5  # of log-likelihood ratio on either side of the threshold; none without a calibration
MIN_DURATION_SECONDS = 1.0


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    p = argparse.ArgumentParser(
        prog="stream.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("model_file", type=Path, metavar="MODEL", help="an exported file, or a checkpoint")
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--wav", type=Path, metavar="FILE", help="a recording in any format, of any length")
    source.add_argument("--microphone", action="store_true", help="needs the sounddevice package")
    p.add_argument("--device", help="which microphone, by number or name (default: the system's)")
    p.add_argument(
        "--hop", type=float, default=HOP_SECONDS, metavar="SECONDS", help=f"default {HOP_SECONDS:g}"
    )
    p.add_argument("--json", action="store_true", help="one JSON object a line")
    p.add_argument("--threshold", metavar="NAME", help="operating point to decide at (default: the first)")
    p.add_argument("--smoothing", type=float, default=SMOOTHING_SECONDS, metavar="SECONDS")
    p.add_argument("--no-gate", action="store_true", help="take everything for speech")
    p.add_argument("--fast", action="store_true", help="of two halves: near scores at the least cost")
    p.add_argument("--model", metavar="NAME", help="which network, for a checkpoint that does not tell")
    p.add_argument("--trusted-key", type=Path, metavar="FILE", help="open only what this key has signed")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="threads within one run (default 1)")
    return p


def stream_config(rate: int, channels: int, window: int, hop: int, gate: bool) -> StreamConfig:
    """Returns how audio becomes windows."""
    least = min(round(MIN_SPEECH_SECONDS * SAMPLE_RATE), window)
    return StreamConfig(rate, channels, window, hop, first=least, min_speech=least, gate=gate)


def rules_of(manifest: Manifest | None, threshold: str | None, smoothing_seconds: float) -> Rules | None:
    """Returns how scores become decisions, or None where the manifest says nothing to decide by.

    Raises:
        UserError: There is no such operating point, or the smoothing is negative.
    """
    if not 0 <= smoothing_seconds <= 3600:
        raise UserError(f"--smoothing is {smoothing_seconds:g} s; 0 to 3600 s are possible")
    table = table_of(manifest, threshold)
    calibration, point = table.calibration, table.threshold
    if calibration is None and point is None:
        return None
    scale, offset = (calibration.scale, calibration.offset) if calibration else (1.0, 0.0)
    middle = scale * point.score + offset if point else 0.0
    margin = MARGIN if calibration else 0.0
    return Rules(
        scale,
        offset,
        smoothing_seconds * SAMPLE_RATE,
        middle - margin,
        middle + margin,
        round(MIN_DURATION_SECONDS * SAMPLE_RATE),
    )


@dataclass
class Summary:
    """What a run came to."""

    windows: int = 0
    not_enough: int = 0
    lost_samples: int = 0
    turns: list[tuple[int, str]] = field(default_factory=list)  # each decision and when it was made
    scores: list[float] = field(default_factory=list)
    failure: str | None = None

    def lines(self, seconds: float) -> str:
        """Returns it in a few words."""
        parts = [f"{seconds:.1f} s heard, {self.windows} windows scored"]
        if self.scores:
            parts.append(f"median score {float(np.median(self.scores)):.4f}")
        if self.lost_samples:
            parts.append(f"{self.lost_samples} samples lost")
        if self.turns:
            parts.append(f"decided {self.turns[-1][1]} at {self.turns[-1][0] / SAMPLE_RATE:.2f} s")
        elif self.windows:
            parts.append("no decision")
        else:
            parts.append("not enough speech")
        return ", ".join(parts) + (f"; {self.failure}" if self.failure else "")


class Listener:
    """Runs a detector over a stream and writes what it finds."""

    def __init__(
        self, model: StreamModel, config: StreamConfig, rules: Rules | None, *, as_json: bool, out: TextIO
    ) -> None:
        self.score = model.score
        self.stream = Stream(config)
        self.judge = Judge(rules) if rules else None
        self.calibrated = bool(model.manifest and model.manifest.calibration)
        self.as_json, self.out = as_json, out
        self.summary = Summary()

    def listen(self, source: Source) -> Summary:
        """Hears a source to its end, an interruption or its failure; returns what it came to."""
        try:
            for piece in source.pieces:
                self.tell(
                    self.stream.gap(piece.frames) if isinstance(piece, Lost) else self.stream.feed(piece)
                )
                self.summary.lost_samples += piece.frames if isinstance(piece, Lost) else 0
        except SourceFailed as failure:
            self.summary.failure = str(failure)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        self.tell(self.stream.finish())
        return self.summary

    def tell(self, events: Iterator[Event]) -> None:
        """Scores the windows among the events and writes a line for each event."""
        for event in events:
            if event.window is None:
                self.summary.not_enough += 1
                self.write(event, None, None)
                continue
            score = self.score(event)
            verdict = self.judge.hear(score, event.end) if self.judge else None
            self.summary.windows += 1
            self.summary.scores.append(score)
            if verdict and verdict.changed:
                self.summary.turns.append((event.end, verdict.decision.name.lower()))
            self.write(event, score, verdict)

    def write(self, event: Event, score: float | None, verdict: Verdict | None) -> None:
        """Writes the line of an event at once, so that a reader of the pipe follows."""
        facts = self.facts(event, score, verdict)
        print(json.dumps(facts) if self.as_json else as_text(facts), file=self.out, flush=True)

    def facts(self, event: Event, score: float | None, verdict: Verdict | None) -> dict[str, object]:
        """Returns what is known of an event; times in seconds, and exactly in samples."""
        facts: dict[str, object] = {
            "time": event.end / SAMPLE_RATE,
            "start_sample": event.start,
            "end_sample": event.end,
            "speech_seconds": event.speech / SAMPLE_RATE,
        }
        if score is None:
            return {**facts, "status": "not enough speech"}
        facts |= {"status": "scored", "score": score}
        if verdict and self.calibrated:
            facts |= {"llr": verdict.llr, "smoothed_llr": verdict.smoothed}
        if verdict:
            decided = verdict.decision is not Decision.UNDECIDED
            facts |= {
                "decision": verdict.decision.name.lower(),
                "since": verdict.since / SAMPLE_RATE if decided else None,
                "changed": verdict.changed,
            }
        return facts


def as_text(facts: dict[str, object]) -> str:
    """Returns the line for people."""
    time = f"{facts['time']:9.2f} s"
    if facts["status"] != "scored":
        return f"{time}  not enough speech ({facts['speech_seconds']:.2f} s)"
    parts = [time, f"score {facts['score']:+.4f}"]
    if "llr" in facts:
        parts.append(f"llr {facts['llr']:+.2f}, smoothed {facts['smoothed_llr']:+.2f}")
    if "decision" in facts:
        parts.append(f"{facts['decision']}{' <' if facts['changed'] else ''}")
    return "  ".join(parts)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    if args.device and not args.microphone:
        raise UserError("--device belongs to --microphone")
    if not 0.01 <= args.hop <= 3600:
        raise UserError(f"--hop is {args.hop:g} s; 0.01 to 3600 s are possible")
    model = open_stream_model(
        args.model_file,
        args.hop,
        fast=args.fast,
        threads=args.threads,
        network=args.model,
        trusted_key=args.trusted_key,
    )
    rules = rules_of(model.manifest, args.threshold, args.smoothing)
    with open_microphone(args.device) if args.microphone else open_recording(args.wav) as source:
        config = stream_config(source.rate, source.channels, model.samples, model.hop, not args.no_gate)
        listener = Listener(model, config, rules, as_json=args.json, out=sys.stdout)
        summary = listener.listen(source)
    print(summary.lines(listener.stream.time / SAMPLE_RATE), file=sys.stderr)
    return EXIT_CHECK_FAILED if summary.failure or not summary.windows else EXIT_DONE


if __name__ == "__main__":
    run(main)
