"""AASIST over windows that follow one another, computing only what a window adds to the one before.

The encoder's pooling makes one column of 3^7 = 2187 samples, so a window that starts a whole number of
columns later repeats the columns of the last one, shifted. Not all of them: convolutions pad the window's
edges with zeros, and through six blocks that padding reaches the first column and the last
(`WaveformEncoder._in_tiles` says why it is one). Two ways to deal with those:

- exact: both are computed anew for every window. The score is that of the whole window, up to rounding.
- fast: a column stays what it was when it was last, or when it was not first yet. That saves three columns
  a hop, and the score is not quite that of the whole window.

Where columns are computed, one more beside them is, which the padding of the piece's own edge spoils.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from antispoof.errors import UserError
from antispoof.manifest import MAX_BYTES, File, Manifest, describe_content, parse_manifest
from runtimes.ort import open_session

SUFFIX = ".cached.json"
SCHEMA = 1
HALO = 1  # columns beside an edge that its padding spoils
Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Geometry:
    """How samples become columns: ``frames`` of ``column`` samples each, and ``reach`` samples beyond."""

    samples: int
    column: int
    frames: int
    reach: int


class CachedDetector:
    """Scores windows that follow one another by a whole number of columns.

    Attributes:
        hop: Samples from one window to the next.
        fresh_columns: Columns computed for a window that follows, those spoilt included.
    """

    def __init__(
        self, encode: Function, classify: Function, geometry: Geometry, hop_columns: int, *, exact: bool
    ) -> None:
        """Takes the two halves of a detector.

        Args:
            encode: Waveform ``(1, samples)`` of any length to the map ``(1, C, F, columns)``.
            classify: The whole map to the score ``(1,)``.
            geometry: Of the encoder.
            hop_columns: Columns from one window to the next.
            exact: Whether the columns that padding touches are computed anew.

        Raises:
            UserError: The hop is less than a column, or leaves nothing to keep.
        """
        self.encode, self.classify, self.geometry, self.exact = encode, classify, geometry, exact
        self.hop_columns, self.hop = hop_columns, hop_columns * geometry.column
        renewed = hop_columns + (1 if exact else 0)  # exact: the column that was last is no longer
        self._first = geometry.frames - renewed - HALO  # column that the new piece starts with
        if hop_columns < 1 or self._first < 1:
            raise UserError(
                f"a hop of {hop_columns} columns of {geometry.column} samples: 1 to "
                f"{geometry.frames - 3 if exact else geometry.frames - 2} leave something to keep"
            )
        self.fresh_columns = renewed + HALO + (1 + HALO if exact else 0)
        self._map: np.ndarray | None = None

    def score(self, window: np.ndarray, *, follows: bool) -> float:
        """Returns the score of ``window (samples,)``.

        Args:
            window: float32 at 16 kHz.
            follows: Whether it begins ``hop`` samples after the last one, in the same audio.
        """
        waveform = np.ascontiguousarray(window[None])
        last = self._map if follows else None
        self._map = self.encode(waveform) if last is None else self._moved(last, waveform)
        return float(self.classify(self._map)[0])

    def _moved(self, last: np.ndarray, waveform: np.ndarray) -> np.ndarray:
        column = self.geometry.column
        fresh = self.encode(np.ascontiguousarray(waveform[:, self._first * column :]))[..., HALO:]
        kept = last[..., self.hop_columns :][..., : self.geometry.frames - fresh.shape[3]]
        if not self.exact:
            return np.concatenate([kept, fresh], axis=3)
        edge = np.ascontiguousarray(waveform[:, : (1 + HALO) * column + self.geometry.reach])
        return np.concatenate([self.encode(edge)[..., :1], kept[..., 1:], fresh], axis=3)


@dataclass(frozen=True)
class CachedFiles:
    """The two halves on disk: what the detector is, its geometry, and the files' names and hashes."""

    manifest: Manifest
    geometry: Geometry
    encoder: File
    back_end: File

    def to_json(self) -> str:
        """Returns it as JSON, the same bytes for the same facts."""
        return json.dumps({"cached": SCHEMA, **asdict(self)}, indent=2, sort_keys=True) + "\n"


def read_cached(path: Path) -> CachedFiles:
    """Reads and checks what stands in a ``.cached.json``.

    Raises:
        UserError: It is missing, or not one.
    """
    try:
        with path.open("rb") as file:
            facts = json.loads(file.read(MAX_BYTES))
        if facts["cached"] != SCHEMA:
            raise UserError(f"{path}: schema {facts['cached']!r}; this version reads {SCHEMA}")
        manifest = parse_manifest(json.dumps(facts["manifest"]).encode(), str(path))
        geometry = Geometry(**{name: int(value) for name, value in facts["geometry"].items()})
        files = [File(**facts[part]) for part in ("encoder", "back_end")]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no description of a split detector; export it again") from error
    if geometry.samples != manifest.input.samples or min(asdict(geometry).values()) < 1:
        raise UserError(f"{path}: its geometry does not fit its manifest")
    return CachedFiles(manifest, geometry, *files)


def open_cached(
    path: Path, hop_columns: int, *, exact: bool, threads: int = 1
) -> tuple[CachedFiles, CachedDetector]:
    """Opens both halves in ONNX Runtime after their hashes were found right."""
    files = read_cached(path)
    encode, classify = (_opened(path, file, threads) for file in (files.encoder, files.back_end))
    return files, CachedDetector(encode, classify, files.geometry, hop_columns, exact=exact)


def _opened(path: Path, file: File, threads: int) -> Function:
    place = path.with_name(Path(file.name).name)
    try:
        content = place.read_bytes()
    except OSError as error:
        raise UserError(f"{place}: {error.strerror}") from error
    if describe_content(place, content) != file:
        raise UserError(f"{place}: not the file that {path.name} was written for; export it again")
    session = open_session(content, threads=threads)
    (name,) = (value.name for value in session.get_inputs())

    def run(values: np.ndarray) -> np.ndarray:
        result: np.ndarray = session.run(None, {name: values})[0]
        return result

    return run
