"""Golden scores: clips and what a model file must score them, for machines that PyTorch never sees.

``<file>.golden.json`` names the clips' scores and the tolerance; ``<file>.golden.f32`` holds the clips,
one behind the other, as raw little-endian float32 samples, which any language reads without a library.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.audio import SAMPLE_RATE, fit_length
from antispoof.errors import CheckFailed, UserError
from antispoof.formats import format_of
from antispoof.manifest import Manifest
from antispoof.outputs import write_whole
from antispoof.speechlike import speech_like
from runtimes.base import Runtime

SCHEMA = 1
MAX_CLIPS = 1000
SEED = 1000  # other clips than those that verify exports
SHORT_SECONDS = 1.7
# The floats before the first integers are rounded otherwise on every processor, and a few integers flip with
# them: scores of the bundled detector move by 0.016 at most in browsers and emulated ARM. Arithmetic that is
# wrong, as saturation is, moves them by tenths.
INTEGER_TOLERANCE = 0.05
SAME_EVERYWHERE = {"rr", "f64"}  # options of recipes, of which one takes saturation away and one rounding


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


def golden_sha256(model_file: Path) -> str:
    """Returns the hash of the golden scores beside a model file, which hold that of the clips in turn.

    Raises:
        UserError: They are missing.
    """
    path = golden_paths(model_file)[0]
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def golden_clips(samples: int) -> np.ndarray:
    """Returns generated clips ``(5, samples)``, float32, of which no two are alike in kind.

    In turn: speech-like; a short one, repeated as short input is; one 20 dB lower; one overdriven; one in
    noise. None has empty bands: the logarithm of next to nothing is rounding, and differs by runtime.
    """
    short = speech_like(SEED + 1, min(round(SHORT_SECONDS * SAMPLE_RATE), samples - samples // 3))
    noise = 0.02 * np.random.default_rng(SEED).standard_normal(samples)
    clips = [
        speech_like(SEED, samples),
        fit_length(short, samples),
        0.1 * speech_like(SEED + 2, samples),
        0.3 * np.tanh(8 * speech_like(SEED + 3, samples)),
        speech_like(SEED + 4, samples) + noise,
    ]
    return np.stack(clips).astype(np.float32)


def golden_tolerance(model_file: Path, manifest: Manifest) -> float:
    """Returns how far off a file's scores may be on another processor: 0 where its recipe promises that."""
    if set(manifest.recipe.split("-")) >= SAME_EVERYWHERE:
        return 0.0
    floats = format_of(model_file).tolerance_of(manifest.precision)
    integers = re.search(r"\bu?int\d+ activations", manifest.precision)
    return max(floats, INTEGER_TOLERANCE) if integers else floats


def make_golden(runtime: Runtime, folder: Path) -> Golden:
    """Writes golden scores of a model file into a folder, by running it here.

    What another machine must reproduce is what the file itself scored, not what PyTorch did. Integers without
    a reduced range score otherwise on processors that saturate (AVX2 without VNNI): make theirs elsewhere.

    Raises:
        UserError: It scores all clips alike, which any broken file would reproduce.
    """
    assert runtime.manifest is not None
    clips = golden_clips(runtime.input.samples)
    scores = runtime.score(clips)
    tolerance = golden_tolerance(runtime.path, runtime.manifest)
    if np.ptp(scores) <= tolerance:
        raise UserError(
            f"{runtime.path} scores {len(clips)} clips of different kinds alike (to {np.ptp(scores):.1g}); "
            "a model that hears nothing is not worth embedding"
        )
    names = (runtime.manifest.input.name, runtime.manifest.output.name)
    return write_golden(folder / runtime.path.name, clips, scores, names=names, tolerance=tolerance)


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
        write_whole(path, written)
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
