"""Scores the trials of a protocol with a model file, and remembers the scores on disk.

The memory of one model is a text file of lines ``name <tab> score``, named after the sha256 of the model and
of the list of clips (name, size and time of change of each). Lines are added as clips are scored, so an
interrupted run goes on where it stopped and a repeated one is done at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from antispoof.audio import SAMPLE_RATE, fit_length, load_audio
from antispoof.data import Trial, read_protocol, resolve_audio
from antispoof.errors import UserError
from antispoof.manifest import describe_file
from runtimes import Runtime


@dataclass(frozen=True)
class Clips:
    """Trials and their files, in the same order."""

    trials: tuple[Trial, ...]
    files: tuple[Path, ...]

    def waveform(self, index: int, samples: int) -> np.ndarray:
        """Returns a clip as a batch of one, ``(1, samples)`` float32."""
        return fit_length(load_audio(self.files[index], limit_seconds=samples / SAMPLE_RATE), samples)[None]


def find_clips(protocol: Path, audio: Path, *, format: str | None, splits: Sequence[str]) -> Clips:
    """Returns the trials of a protocol, or of some of its splits, with their files below ``audio``.

    Raises:
        UserError: The protocol cannot be read, has no such split, or a file is missing.
    """
    trials: list[Trial] = []
    for split in dict.fromkeys(splits) if splits else [None]:
        trials += read_protocol(protocol, format, split)
    return Clips(tuple(trials), tuple(resolve_audio(trial, audio) for trial in trials))


def score_clips(runtime: Runtime, clips: Clips, memory: Path | None) -> np.ndarray:
    """Returns the scores ``(trials,)``, from ``memory`` (a folder) as far as they are known there.

    Raises:
        UserError: A clip cannot be read or scored, or the memory cannot be written.
    """
    names = [trial.name for trial in clips.trials]
    if memory is None:
        known: dict[str, float] = {}
        file = None
    else:
        file = memory / f"{_key(runtime.path, clips)}.tsv"
        known = _read(file)
        try:
            memory.mkdir(parents=True, exist_ok=True)
            # Ends a line that an interruption cut off; blank lines mean nothing.
            with file.open("a", encoding="utf-8") as rows:
                rows.write("\n" if rows.tell() else "")
        except OSError as error:
            raise UserError(f"cannot remember scores in {memory}: {error.strerror}") from error
    todo = [index for index, name in enumerate(names) if name not in known]
    for index in tqdm(todo, desc=runtime.path.name, unit="clip", disable=None):
        score = float(runtime.score(clips.waveform(index, runtime.input.samples))[0])
        known[names[index]] = score
        if file is not None:
            with file.open("a", encoding="utf-8") as rows:
                rows.write(f"{names[index]}\t{score!r}\n")
    return np.array([known[name] for name in names])


def _key(model: Path, clips: Clips) -> str:
    """Returns what names the memory of a model on a list of clips."""
    digest = hashlib.sha256(describe_file(model).sha256.encode())
    for trial, file in zip(clips.trials, clips.files, strict=True):
        status = file.stat()
        digest.update(f"{trial.name}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _read(file: Path) -> dict[str, float]:
    """Returns the scores in a memory; a line that was cut off counts for nothing."""
    if not file.exists():
        return {}
    known = {}
    for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
        name, tab, score = line.rpartition("\t")
        if tab:
            known[name] = float(score)
    return known
