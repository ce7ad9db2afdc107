"""Golden scores: clips and what a model file must score them, for machines that PyTorch never sees.

``<file>.golden.json`` names the clips' scores and the tolerance; ``<file>.golden.f32`` holds the clips,
one behind the other, as raw little-endian float32 samples, which any language reads without a library.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import CheckFailed, UserError
from runtimes.base import Runtime

SCHEMA = 1
MAX_CLIPS = 1000


@dataclass(frozen=True)
class Golden:
    """Clips and their scores.

    Attributes:
        input: The name of the model's input.
        output: That of its output.
        clips: How many clips there are.
        samples: Their length.
        scores: What they must score.
        tolerance: How far off a score may be.
        sha256: That of the clips' file.
    """

    input: str
    output: str
    clips: int
    samples: int
    scores: tuple[float, ...]
    tolerance: float
    sha256: str
    schema: int = SCHEMA


def golden_paths(model_file: Path) -> tuple[Path, Path]:
    """Returns where the scores and the clips of a model file lie."""
    return (
        model_file.with_name(model_file.name + ".golden.json"),
        model_file.with_name(model_file.name + ".golden.f32"),
    )


def write_golden(
    model_file: Path,
    waveforms: np.ndarray,
    scores: np.ndarray,
    *,
    names: tuple[str, str],
    tolerance: float,
) -> Golden:
    """Writes clips ``(clips, samples)`` and their scores ``(clips,)`` beside a model file."""
    samples_path = golden_paths(model_file)[1]
    content = np.ascontiguousarray(waveforms, "<f4").tobytes()
    clips, length = waveforms.shape
    golden = Golden(
        *names,
        clips,
        length,
        tuple(float(score) for score in scores),
        tolerance,
        hashlib.sha256(content).hexdigest(),
    )
    text = json.dumps(asdict(golden), indent=2, sort_keys=True) + "\n"
    for path, written in ((samples_path, content), (golden_paths(model_file)[0], text.encode())):
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        partial.write_bytes(written)
        partial.replace(path)
    return golden


def read_golden(model_file: Path) -> tuple[Golden, np.ndarray]:
    """Returns the golden scores beside a model file, and the clips ``(clips, samples)``.

    Raises:
        UserError: They are missing, damaged or do not belong together.
    """
    scores_path, samples_path = golden_paths(model_file)
    try:
        facts = json.loads(scores_path.read_bytes())
        golden = _parse(facts)
        content = samples_path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; export the model again") from None
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise UserError(f"{scores_path}: no golden scores") from None
    if golden.schema != SCHEMA or golden.clips != len(golden.scores) or not 0 < golden.clips <= MAX_CLIPS:
        raise UserError(f"{scores_path}: no golden scores of schema {SCHEMA}")
    whole = len(content) == 4 * golden.clips * golden.samples
    if not whole or hashlib.sha256(content).hexdigest() != golden.sha256:
        raise UserError(f"{samples_path}: sha256 differs from what {scores_path.name} says")
    return golden, np.frombuffer(content, "<f4").reshape(golden.clips, golden.samples).astype(np.float32)


def _parse(facts: dict[str, Any]) -> Golden:
    return Golden(
        str(facts["input"]),
        str(facts["output"]),
        int(facts["clips"]),
        int(facts["samples"]),
        tuple(float(score) for score in facts["scores"]),
        float(facts["tolerance"]),
        str(facts["sha256"]),
        int(facts["schema"]),
    )


def check_golden(runtime: Runtime) -> float:
    """Scores the golden clips with a runtime and returns the largest difference.

    Raises:
        UserError: There are no golden scores beside the runtime's file.
        CheckFailed: A score is off by more than the tolerance; says which, and whether all are turned round.
    """
    golden, waveforms = read_golden(runtime.path)
    expected = np.array(golden.scores)
    scores = runtime.score(waveforms).astype(np.float64)
    difference = np.abs(scores - expected)
    worst = int(np.argmax(difference))
    if difference[worst] <= golden.tolerance:
        return float(difference[worst])
    raise CheckFailed(
        f"{runtime.path.name}: golden clip {worst} of {golden.clips} scores {scores[worst]:.6f} instead of "
        f"{expected[worst]:.6f} (allowed: {golden.tolerance:g}){_turned_round(scores, expected)}"
    )


def _turned_round(scores: np.ndarray, expected: np.ndarray) -> str:
    """Says so where clips that should score higher score lower."""
    rising, falling = (
        np.sign(np.subtract.outer(scores, scores)),
        np.sign(np.subtract.outer(expected, expected)),
    )
    if len(scores) > 2 and (rising * falling).sum() <= -0.9 * (falling != 0).sum():
        return "; clips that should score higher score lower: the polarity is turned round"
    return ""
