"""What scores the windows of a stream: any runtime window by window, or two halves that keep columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError
from antispoof.manifest import Manifest
from runtimes import load
from runtimes.cached import SUFFIX, CachedDetector, nearest_hop, open_cached
from runtimes.native_core import Event


@dataclass(frozen=True)
class StreamModel:
    """What scores windows: its manifest, the samples it takes, the hop between windows, and the function."""

    manifest: Manifest | None
    samples: int
    hop: int
    score: Callable[[Event], float]


def open_stream_model(
    path: Path,
    hop_seconds: float,
    *,
    fast: bool,
    threads: int,
    network: str | None,
    trusted_key: Path | None = None,
) -> StreamModel:
    """Opens a model file, or a model in two halves where its name ends in ``.cached.json``.

    Args:
        path: The file.
        hop_seconds: Between windows; of two halves the nearest whole number of columns is taken.
        fast: Of two halves, whether to take those whose scores are near, for the least work.
        threads: How many one run may use.
        network: The model's name, for a checkpoint that does not tell.
        trusted_key: A public key that must have signed the file; models in two halves are not signed.

    Raises:
        UserError: As `runtimes.load` or `runtimes.cached.open_cached`, or an argument belongs to the other.
    """
    if path.name.endswith(SUFFIX):
        if network:
            raise UserError(f"--model is for checkpoints; a *{SUFFIX} says which model it is")
        if trusted_key:
            raise UserError(f"{path}: models in two halves are not signed; --trusted-key is for whole ones")
        return _in_halves(path, hop_seconds, fast, threads)
    if fast:
        raise UserError(f"--fast is for models exported in two halves (*{SUFFIX}, export/to_onnx_cached.py)")
    runtime = load(path, threads=threads, model=network, trusted_key=trusted_key)

    def score(event: Event) -> float:
        assert event.window is not None
        return float(runtime.score(event.window[None])[0])

    return StreamModel(runtime.manifest, runtime.input.samples, round(hop_seconds * SAMPLE_RATE), score)


def _in_halves(path: Path, hop_seconds: float, fast: bool, threads: int) -> StreamModel:
    columns = nearest_hop(path, hop_seconds, exact=not fast)
    files, cached = open_cached(path, columns, exact=not fast, threads=threads)
    return StreamModel(files.manifest, files.manifest.input.samples, cached.hop, _following(cached))


def _following(cached: CachedDetector) -> Callable[[Event], float]:
    """Returns a function that scores windows and knows which of them follow the last one scored."""
    last: tuple[int, int] | None = None  # turn and position of the last whole window

    def score(event: Event) -> float:
        nonlocal last
        assert event.window is not None
        follows = last is not None and last == (event.turn, event.position - cached.hop)
        whole = event.samples == cached.geometry.samples
        result = cached.score(event.window, follows=follows and whole)
        last = (event.turn, event.position) if whole else None
        return result

    return score
