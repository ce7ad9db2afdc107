"""Opens what is to be timed: an exported file, a checkpoint, somebody else's ONNX file, or a peer's file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.audio import CLIP_SAMPLES
from antispoof.errors import UserError
from antispoof.formats import format_of
from antispoof.manifest import Manifest, manifest_path
from benchmarks import peer_runtimes
from benchmarks.timing.worker_handle import Following
from runtimes import load
from runtimes.cached import SUFFIX as CACHED
from runtimes.native_core import Event, Kind
from runtimes.ort import open_session
from runtimes.stream_model import open_stream_model

# The library that runs a format. A worker imports it before it measures memory, so that what a model
# needs is not mixed up with what its library needs.
LIBRARIES = {"torch": "torch", "onnx": "onnxruntime"}


@dataclass(frozen=True)
class Subject:
    """A model that is open and ready to be timed.

    Attributes:
        run: Takes an input of ``shape`` and computes; nothing else happens in it.
        score: The number to show for the first clip, taken from what ``run`` returned.
        shape: Of the input; its last axis is time.
        facts: What the results file says of it.
    """

    run: Callable[[np.ndarray], Any]
    score: Callable[[Any], float]
    shape: tuple[int, ...]
    facts: dict[str, Any]


def is_foreign(path: Path) -> bool:
    """Tells whether a file is an ONNX file without manifest: not one of ours, timed all the same."""
    return format_of(path).name == "onnx" and not manifest_path(path).exists()


def import_library(path: Path) -> None:
    """Imports the library that will run a file, as far as it is installed."""
    is_peer = path.suffix == peer_runtimes.SUFFIX
    if is_peer:
        peer_runtimes.keep_quiet()
    is_split = path.name.endswith(CACHED)
    format = "onnx" if is_peer or is_split else format_of(path).name
    name = peer_runtimes.library_of(path) if is_peer else LIBRARIES.get(format)
    if name is not None:
        try:
            importlib.import_module(name)
        except ImportError:
            return  # opening the file says what to install


def open_subject(
    path: Path, *, threads: int, model: str | None = None, following: Following | None = None
) -> Subject:
    """Opens a file for timing.

    Args:
        path: An exported file, a checkpoint, an ONNX file without manifest, or a peer's file.
        threads: How many threads one run may use.
        model: The model's name, for a checkpoint that does not tell.
        following: Whether to score windows that follow one another, and how.

    Raises:
        UserError: The file cannot be opened, or has not one float32 input.
    """
    if following:
        return _open_following(path, threads, following)
    if path.suffix == peer_runtimes.SUFFIX:
        facts = {"format": peer_runtimes.runtime_of(path), "manifest": False}
        run = peer_runtimes.open_run(path, threads)
        return Subject(run, _foreign_score, peer_runtimes.SHAPE, facts)
    if is_foreign(path):
        return _open_foreign(path, threads)
    row = format_of(path)
    runtime = load(path, threads=threads, model=model if row.name == "torch" else None)
    facts = {
        "format": row.name,
        "manifest": runtime.manifest is not None,
        **_origin(runtime.manifest),
    }
    shape = (runtime.input.batch or 1, runtime.input.samples)
    # `_run`, without the checks of `score`: a foreign file's session is called as barely.
    return Subject(runtime._run, lambda scores: float(scores[0]), shape, facts)


def _open_following(path: Path, threads: int, following: Following) -> Subject:
    model = open_stream_model(path, following.hop_seconds, fast=following.fast, threads=threads, network=None)
    position = 0

    def run(audio: np.ndarray) -> list[float]:
        """Scores the windows of ``audio (1, samples)``, as if they followed those of the run before."""
        nonlocal position
        scores = []
        for index in range(following.windows):
            window = audio[0, index * model.hop :][: model.samples]
            event = Event(Kind.WINDOW, model.samples, 0, 0, model.samples, 0, position, window)
            scores.append(model.score(event))
            position += model.hop
        return scores

    shape = (1, model.samples + (following.windows - 1) * model.hop)
    facts = {"manifest": True, **_origin(model.manifest), "hop_samples": model.hop}
    return Subject(run, lambda scores: scores[0], shape, facts)


def _origin(manifest: Manifest | None) -> dict[str, Any]:
    if manifest is None:
        return {}
    keys = ("model", "precision", "recipe", "weights_sha256")
    return {key: getattr(manifest, key) for key in keys}


def _open_foreign(path: Path, threads: int) -> Subject:
    try:
        session = open_session(path.read_bytes(), threads=threads)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    name, shape = _foreign_input(session, path)
    facts = {"format": "onnx", "manifest": False}
    return Subject(lambda clips: session.run(None, {name: clips}), _foreign_score, shape, facts)


def _foreign_input(session: Any, path: Path) -> tuple[str, tuple[int, ...]]:
    """Returns name and shape of the input; free axes become 1, a free time axis the AASIST family's clip."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not inputs[0].shape:
        found = ", ".join(f"{x.name}: {x.type} {x.shape}" for x in inputs)
        raise UserError(
            f"{path}: has no manifest, and not one float32 waveform as its input but {found or 'none'}"
        )
    *leading, samples = (size if isinstance(size, int) else None for size in inputs[0].shape)
    return inputs[0].name, (*(size or 1 for size in leading), samples or CLIP_SAMPLES)


def _foreign_score(outputs: Sequence[Any]) -> float:
    """Returns the last value of the smallest output: of logits the bona fide one, in the field's usual order.

    For orientation only. An embedding, which some files return as well, is the larger output.
    """
    return float(np.ravel(min(map(np.asarray, outputs), key=np.size))[-1])
