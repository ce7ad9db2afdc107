"""A detector in two halves over windows that follow one another: the first computes only what is new.

What the halves are is the model's own business (`antispoof.models.detector.Split`): an encoder that makes
columns of a window's newest samples, and may hand something on to its next run, and a back end that makes a
score of a window's columns. Here the columns are kept. There are two ways to cut a model:

- exact: the score is that of the whole window, up to rounding.
- fast: columns stay what they were when they were new, and the score is not quite that of the whole window.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.audio import SAMPLE_RATE
from antispoof.columns import Geometry
from antispoof.errors import UserError, one_line
from antispoof.manifest import File, Manifest, describe_content
from antispoof.manifest_reader import MAX_BYTES, parse_manifest
from runtimes.ort import open_session

SUFFIX = ".cached.json"
SCHEMA = 3
USE_KEY = "antispoof"  # under which the encoder's file says how it is used, by the way to cut the model
MAX_CARRIED = 1 << 24  # numbers that an encoder may hand on; those here have thousands
Function = Callable[..., Sequence[np.ndarray]]


@dataclass(frozen=True)
class Halves:
    """One way to cut the model: which files, how samples become columns, and what the encoder hands on.

    Attributes:
        encoder: The file of the first half.
        back_end: That of the second.
        geometry: Of the encoder.
        carried: The shapes of what the encoder hands on; with a window that follows none it gets zeros.
        hears: Whether the back end takes the waveform beside the columns.
    """

    encoder: File
    back_end: File
    geometry: Geometry
    carried: tuple[tuple[int, ...], ...] = ()
    hears: bool = False

    def use(self) -> dict[str, Any]:
        """Returns what the encoder's file says of its use, as JSON has it.

        Figures beside a file can be changed and still fit, and would give wrong scores without a word.
        """
        facts = {name: value for name, value in asdict(self).items() if name != "encoder"}
        return dict(json.loads(json.dumps(facts)))


class CachedDetector:
    """Scores windows that follow one another by a whole number of columns.

    Attributes:
        hop: Samples from one window to the next.
    """

    def __init__(self, encode: Function, classify: Function, halves: Halves, hop_columns: int) -> None:
        """Takes the two halves of a detector.

        Args:
            encode: As `Split.encoder`, with lists for tuples.
            classify: As `Split.back_end`.
            halves: How they belong together.
            hop_columns: Columns from one window to the next.

        Raises:
            UserError: The hop is less than a column, or leaves nothing to keep.
        """
        self.encode, self.classify, self.halves = encode, classify, halves
        self.geometry = geometry = halves.geometry
        if not 1 <= hop_columns <= geometry.largest_hop:
            raise UserError(
                f"a hop of {hop_columns} columns of {geometry.column} samples: 1 to "
                f"{geometry.largest_hop} leave something to keep"
            )
        self.hop_columns, self.hop = hop_columns, hop_columns * geometry.column
        self._columns: np.ndarray | None = None
        self._carried: list[np.ndarray] = []

    def score(self, window: np.ndarray, *, follows: bool) -> float:
        """Returns the score of ``window (samples,)``.

        Args:
            window: float32 at 16 kHz.
            follows: Whether it begins ``hop`` samples after the last one, in the same audio.

        Raises:
            UserError: The audio or the score is not finite.
        """
        waveform = np.ascontiguousarray(window[None])
        last = self._columns if follows else None
        self._columns = self._first(waveform) if last is None else self._moved(last, waveform)
        heard = (waveform,) if self.halves.hears else ()
        score = float(self.classify(self._columns, *heard)[0][0])
        # A pooling may swallow what is no number, so that a finite score says nothing of the audio.
        if not (math.isfinite(score) and np.isfinite(window).all()):
            self._columns = None
            raise UserError("the audio, or the score of it, is not finite")
        return score

    def _first(self, waveform: np.ndarray) -> np.ndarray:
        zeros = [np.zeros(shape, np.float32) for shape in self.halves.carried]
        columns, *self._carried = self.encode(waveform, *zeros)
        return columns[..., -self.geometry.frames :]

    def _moved(self, last: np.ndarray, waveform: np.ndarray) -> np.ndarray:
        geometry = self.geometry
        piece = np.ascontiguousarray(waveform[:, -geometry.piece(self.hop_columns) :])
        columns, *self._carried = self.encode(piece, *self._carried)
        fresh = columns[..., geometry.spoilt :][..., -geometry.frames :]
        kept = last[..., self.hop_columns :][..., : geometry.frames - fresh.shape[-1]]
        if not geometry.edge:
            return np.concatenate([kept, fresh], axis=-1)
        first, *_ = self.encode(np.ascontiguousarray(waveform[:, : geometry.edge_samples]))
        edge = first[..., : geometry.edge]
        return np.concatenate([edge, kept[..., geometry.edge :], fresh], axis=-1)


@dataclass(frozen=True)
class CachedFiles:
    """The halves on disk: what the detector is, and either way to cut it; both may be the same files."""

    manifest: Manifest
    exact: Halves
    fast: Halves

    def to_json(self) -> str:
        """Returns it as JSON, the same bytes for the same facts."""
        return json.dumps({"cached": SCHEMA, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    def halves(self, *, exact: bool) -> Halves:
        """Returns one way or the other."""
        return self.exact if exact else self.fast


def read_cached(path: Path) -> CachedFiles:
    """Reads and checks what stands in a ``.cached.json``.

    Raises:
        UserError: It is missing, or not one.
    """
    try:
        with path.open("rb") as file:
            facts = json.loads(file.read(MAX_BYTES))
        if facts["cached"] != SCHEMA:
            raise UserError(
                f"{path}: schema {facts['cached']!r}, this version reads {SCHEMA}; export it again"
            )
        manifest = parse_manifest(json.dumps(facts["manifest"]).encode(), str(path))
        exact, fast = (_parse_halves(facts[way]) for way in ("exact", "fast"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is no description of a split detector; export it again") from error
    if not all(_is_possible(halves, manifest.input.samples) for halves in (exact, fast)):
        raise UserError(f"{path}: its geometry does not fit its manifest")
    return CachedFiles(manifest, exact, fast)


def _parse_halves(facts: dict[str, Any]) -> Halves:
    geometry = Geometry(**{name: int(value) for name, value in facts["geometry"].items()})
    carried = tuple(tuple(map(int, shape)) for shape in facts["carried"])
    encoder, back_end = (File(**facts[part]) for part in ("encoder", "back_end"))
    if not all(isinstance(file.name, str) and Path(file.name).name for file in (encoder, back_end)):
        raise ValueError("a half without a name")
    return Halves(encoder, back_end, geometry, carried, bool(facts["hears"]))


def _is_possible(halves: Halves, samples: int) -> bool:
    """Tells whether figures from a file can be those of a detector of this window."""
    geometry = halves.geometry
    positive = min(geometry.column, geometry.frames, *(size for shape in halves.carried for size in shape))
    others = min(geometry.overlap, geometry.spoilt, geometry.edge, geometry.edge_samples)
    return (
        geometry.samples == samples
        and positive >= 1
        and others >= 0
        and geometry.edge <= geometry.frames <= samples
        and geometry.edge_samples <= samples
        and sum(math.prod(shape) for shape in halves.carried) <= MAX_CARRIED
    )


def open_cached(
    path: Path, hop_columns: int, *, exact: bool, threads: int = 1
) -> tuple[CachedFiles, CachedDetector]:
    """Opens both halves in ONNX Runtime after their hashes were found right."""
    files = read_cached(path)
    halves = files.halves(exact=exact)
    encoder, back_end = (_opened(path, file, threads) for file in (halves.encoder, halves.back_end))
    _check_use(encoder, halves, "exact" if exact else "fast", path)
    encode, classify = (
        _function(session, path, file)
        for session, file in ((encoder, halves.encoder), (back_end, halves.back_end))
    )
    return files, CachedDetector(encode, classify, halves, hop_columns)


def nearest_hop(path: Path, seconds: float, *, exact: bool) -> int:
    """Returns how many columns of a model in halves come nearest to a hop, one at least."""
    column = read_cached(path).halves(exact=exact).geometry.column
    return max(1, round(seconds * SAMPLE_RATE / column))


def _opened(path: Path, file: File, threads: int) -> Any:
    """Returns a session for a half that is the file it should be."""
    place = path.with_name(Path(file.name).name)
    try:
        content = place.read_bytes()
    except (OSError, ValueError) as error:  # the latter of a name with a null character
        raise UserError(f"{place}: {getattr(error, 'strerror', error)}") from error
    if describe_content(place, content) != file:
        raise UserError(f"{place}: not the file that {path.name} was written for; export it again")
    return open_session(content, threads=threads)


def _check_use(encoder: Any, halves: Halves, way: str, path: Path) -> None:
    """Refuses figures that are not those which the encoder was exported with."""
    try:
        known = json.loads(encoder.get_modelmeta().custom_metadata_map[USE_KEY])[way]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: {halves.encoder.name} does not say how it is used; export it again"
        ) from error
    if known != halves.use():
        raise UserError(f"{path}: changed since {halves.encoder.name} was exported with it; export it again")


def _function(session: Any, path: Path, file: File) -> Function:
    place = path.with_name(Path(file.name).name)
    names = [value.name for value in session.get_inputs()]

    def run(*values: np.ndarray) -> Sequence[np.ndarray]:
        try:
            results: Sequence[np.ndarray] = session.run(None, dict(zip(names, values, strict=True)))
        except Exception as error:  # those of ONNX Runtime share no base but Exception
            raise UserError(
                f"{place}: does not take what {path.name} says that it takes ({one_line(error)[:160]})"
            ) from error
        return results

    return run
