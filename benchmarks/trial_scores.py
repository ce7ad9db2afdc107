"""Scores the trials of a protocol with a model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from antispoof.audio import fit_length, load_head
from antispoof.errors import UserError
from antispoof.manifest import describe_file
from antispoof.protocols import BONAFIDE, Trial, read_protocol, resolve_audio
from benchmarks.score_memory import remembered_scores
from runtimes import Runtime


@dataclass(frozen=True)
class Clips:
    """Trials and their files, in the same order."""

    trials: tuple[Trial, ...]
    files: tuple[Path, ...]

    @property
    def is_bonafide(self) -> np.ndarray:
        """Which trials are genuine, (trials,) booleans."""
        return np.array([trial.label == BONAFIDE for trial in self.trials])

    def waveform(self, index: int, samples: int) -> np.ndarray:
        """Returns a clip as a batch of one, ``(1, samples)`` float32."""
        return fit_length(load_head(self.files[index], samples), samples)[None]


def find_clips(protocol: Path, audio: Path, *, format: str | None, splits: Sequence[str]) -> Clips:
    """Returns the trials of a protocol, or of some of its splits, with their files below ``audio``.

    Raises:
        UserError: The protocol cannot be read, has no such split or trials of one class alone, or a file is
            missing.
    """
    trials: list[Trial] = []
    for split in dict.fromkeys(splits) if splits else [None]:
        trials += read_protocol(protocol, format, split)
    if len({trial.label for trial in trials}) < 2:
        raise UserError(f"{protocol}: every trial is {trials[0].label}; error rates need both classes")
    return Clips(tuple(trials), tuple(resolve_audio(trial, audio) for trial in trials))


def score_clips(runtime: Runtime, clips: Clips, memory: Path | None) -> np.ndarray:
    """Returns the scores ``(trials,)``, from ``memory`` (a folder) as far as they are known there.

    They are remembered by the sha256 of the model, by name, size and time of change of each clip, and by the
    processor and the versions of what runs the model and decodes the clips.

    Raises:
        UserError: A clip cannot be read or scored, or the memory is damaged or cannot be written.
    """

    def score(places: Sequence[int]) -> list[float]:
        waveforms = (clips.waveform(place, runtime.input.samples) for place in places)
        return [float(runtime.score(waveform)[0]) for waveform in waveforms]

    names = [trial.name for trial in clips.trials]
    key = "" if memory is None else memory_key(runtime.path, clips)
    return remembered_scores(memory, key, names, score, title=runtime.path.name)


def memory_key(model: Path, clips: Clips) -> str:
    """Returns all that the scores of a model on a list of clips depend on."""
    lines = [describe_file(model).sha256]
    for trial, file in zip(clips.trials, clips.files, strict=True):
        status = file.stat()
        lines.append(f"{trial.name}\t{status.st_size}\t{status.st_mtime_ns}")
    return "\n".join(lines)
