"""Searches the layers of a network for those that should stay float; `quantize.sensitivity` is its command.

Measurements are kept on disk as they are made: a search takes minutes, and times are never the same twice.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnx import ModelProto

from antispoof.errors import UserError
from antispoof.metrics import equal_error_rate
from antispoof.outputs import write_whole
from quantize.onnx_graph import OnnxGraph
from quantize.scope import layers_in_scope
from quantize.static_int import Calibrated
from runtimes.ort import open_session

SCHEMA = 1
MOST_TIME = 0.55  # of the float file's
ROUNDS = 9  # of timing: enough to tell layers apart by their rank, not to publish
LEAST_SHARE = 0.02  # of the time, below which a difference in time is noise


@dataclass(frozen=True)
class Point:
    """A set of layers left in float, and what was measured of the file. Errors are those of scores.

    Attributes:
        layers: Outputs of the layers in float.
        bytes: Size of the file.
        time: As a share of the float file's.
        milliseconds: Of processor time for a clip, median.
        median: Of the absolute error, its mean taken off before.
        p95: The same.
        rms: Root of its mean square, by which points are ranked: the smoothest of the three.
        eer_difference: From the float file's EER, a fraction; None without labels.
    """

    layers: tuple[str, ...]
    bytes: int
    time: float
    milliseconds: float
    median: float
    p95: float
    rms: float
    eer_difference: float | None


@dataclass(frozen=True)
class Material:
    """What every candidate is measured on.

    Attributes:
        clips: ``(clips, samples)``.
        scores: Of the float file, ``(clips,)``.
        bonafide: Labels ``(clips,)``, or None.
    """

    clips: np.ndarray
    scores: np.ndarray
    bonafide: np.ndarray | None


@dataclass(frozen=True)
class Limits:
    """What the chosen file may take: time, as a share of the float file's, and KiB."""

    time: float = MOST_TIME
    kib: float = np.inf


@dataclass(frozen=True)
class Found:
    """The answer: all points measured, the ranks of the layers, the front, and the point chosen."""

    none: Point
    ranked: tuple[Point, ...]
    front: tuple[Point, ...]
    chosen: Point


class State:
    """Measurements on disk, each written as soon as it is known."""

    def __init__(self, path: Path | None, key: str, force: bool = False) -> None:
        self.path, self.key = path, key
        self.points: dict[str, Point] = {}
        if path is None or force or not path.exists():
            return
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            same = kept["schema"] == SCHEMA and kept["key"] == key
            points = [Point(**{**row, "layers": tuple(row["layers"])}) for row in kept["points"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: no state of a search; --force begins anew") from error
        if not same:
            raise UserError(f"{path} is of another model, recipe or clips; --force begins anew")
        self.points = {_name(point.layers): point for point in points}

    def measured(self, layers: Iterable[str], measure: Callable[[tuple[str, ...]], Point]) -> Point:
        """Returns what is known of a set of layers, or measures it."""
        chosen = tuple(sorted(layers))
        name = _name(chosen)
        if name not in self.points:
            self.points[name] = measure(chosen)
            self._write()
        return self.points[name]

    def _write(self) -> None:
        if self.path is None:
            return
        content = {"schema": SCHEMA, "key": self.key, "points": [asdict(p) for p in self.points.values()]}
        write_whole(self.path, json.dumps(content, indent=1) + "\n")


def _name(layers: Iterable[str]) -> str:
    return " ".join(sorted(layers))


class Bench:
    """Measures candidates against the float file, in one process and in turn."""

    def __init__(self, calibrated: Calibrated, source: ModelProto, material: Material) -> None:
        self.calibrated, self.material = calibrated, material
        self.source = open_session(source.SerializeToString(), threads=1)
        self.input = source.graph.input[0].name

    def measure(self, layers: tuple[str, ...]) -> Point:
        """Quantizes all but some layers, scores the clips, and times the file."""
        content = replace(self.calibrated, small=frozenset(layers)).quantize().SerializeToString()
        session = open_session(content, threads=1)
        found = np.array([session.run(None, {self.input: clip[None]})[0][0] for clip in self.material.clips])
        error = found.astype(np.float64) - self.material.scores
        absolute = np.abs(error - error.mean())
        share, milliseconds = self._time(session)
        point = Point(
            layers,
            len(content),
            share,
            milliseconds,
            float(np.median(absolute)),
            float(np.quantile(absolute, 0.95)),
            float(np.sqrt(np.mean(absolute**2))),
            self._eer_difference(found),
        )
        print(f"{len(layers)} in float: error {point.rms:.4f}, time {share:.3f}", file=sys.stderr)
        return point

    def _time(self, session: Any) -> tuple[float, float]:
        """Returns the median ratio to the float file's processor time in the same round, and milliseconds."""
        ratios, times = [], []
        for clip in np.resize(np.arange(len(self.material.clips)), ROUNDS):
            feed = {self.input: self.material.clips[clip][None]}
            pair = []
            for one in (self.source, session):
                start = time.process_time()
                one.run(None, feed)
                pair.append(time.process_time() - start)
            ratios.append(pair[1] / pair[0])
            times.append(1e3 * pair[1])
        return median(ratios), median(times)

    def _eer_difference(self, found: np.ndarray) -> float | None:
        genuine = self.material.bonafide
        if genuine is None:
            return None
        eers = [
            equal_error_rate(scores[genuine], scores[~genuine], allow_inverted=True).value
            for scores in (found, self.material.scores)
        ]
        return eers[0] - eers[1]


def search(
    calibrated: Calibrated,
    source: ModelProto,
    material: Material,
    state: State,
    limits: Limits = Limits(),
) -> Found:
    """Finds which layers to leave in float.

    Args:
        calibrated: The model with all of its ranges; learned, if it was.
        source: The float model.
        material: To measure on.
        state: Where measurements are kept.
        limits: What the chosen file may take.
    """
    bench = Bench(calibrated, source, material)
    graph = OnnxGraph(calibrated.model)
    layers = [layer.node.output[0] for layer in layers_in_scope(graph, calibrated.recipe.everything)]
    none = state.measured((), bench.measure)
    alone = [state.measured((layer,), bench.measure) for layer in layers]
    ranked = sorted(alone, key=lambda point: -gain(point, none))
    left: list[str] = []
    for point in ranked:
        left += point.layers
        reached = state.measured(left, bench.measure)
        if reached.time > 1:
            break
    points = list(state.points.values())
    best = pareto(points)
    allowed = [p for p in best if p.time <= limits.time and p.bytes <= 1024 * limits.kib]
    chosen = min(allowed, key=lambda p: p.rms) if allowed else min(best, key=lambda p: p.time)
    return Found(none, tuple(ranked), tuple(best), chosen)


def gain(point: Point, none: Point) -> float:
    """Returns how much error a layer in float takes away, for each millisecond that it takes longer."""
    return (none.rms - point.rms) / max(
        point.milliseconds - none.milliseconds, LEAST_SHARE * none.milliseconds
    )


def pareto(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other one beats in size, time and error, the fastest first."""

    def beaten(point: Point) -> bool:
        mine = (point.bytes, point.time, point.rms)
        others = ((p.bytes, p.time, p.rms) for p in points)
        return any(o != mine and all(a <= b for a, b in zip(o, mine, strict=True)) for o in others)

    return sorted((point for point in points if not beaten(point)), key=lambda point: point.time)


def key_of(calibrated: Calibrated, material: Material) -> str:
    """Returns what tells one search from another: the model with its ranges, and the clips."""
    digest = hashlib.sha256(calibrated.model.SerializeToString(deterministic=True))
    digest.update(repr((calibrated.recipe.name, sorted(calibrated.grids.items()))).encode())
    digest.update(np.ascontiguousarray(material.clips).tobytes())
    return digest.hexdigest()
