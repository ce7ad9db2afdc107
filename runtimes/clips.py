"""Which recordings are to be scored: those below folders, or those that a protocol lists."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from antispoof.audio import fit_length, load_head
from antispoof.errors import UserError
from antispoof.protocols import Trial, read_protocol, resolve_audio
from antispoof.speechlike import speech_like_batch

PARITY_CLIPS = 8
# fmt: off
ENDINGS = (
    ".flac", ".wav", ".wave", ".w64", ".rf64", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".sph",
    ".nist", ".mp3", ".mp2", ".m4a", ".m4b", ".aac", ".ac3", ".eac3", ".ogg", ".oga", ".opus",
    ".amr", ".wma", ".ape", ".tta", ".wv", ".mka", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv",
    ".3gp", ".3g2", ".mpg", ".mpeg",
)
# fmt: on


class Clip(NamedTuple):
    """A recording to score: what the table calls it, and where to find it."""

    name: str
    folder: Path
    trial: Trial | None = None

    def locate(self) -> Path:
        """Returns its file; a `UserError` says that a trial has none."""
        return self.folder / self.name if self.trial is None else resolve_audio(self.trial, self.folder)


def find_clips(paths: Sequence[Path]) -> list[Clip]:
    """Returns the recordings that the paths mean, in their order; those of a folder sorted by name.

    Raises:
        UserError: A path does not exist or cannot be read, a folder holds no audio or loops back into
            itself, or two files would have the same name in the table.
    """
    clips: dict[str, Clip] = {}
    for path in paths:
        for clip in _clips_at(path):
            first = clips.setdefault(clip.name, clip)
            if first is not clip:
                both = f"{first.locate()} and {clip.locate()}"
                raise UserError(f"{both} would both be called {clip.name!r}; give a folder above both")
    return list(clips.values())


def _clips_at(path: Path) -> list[Clip]:
    place = path.absolute()
    try:
        if not place.is_dir():
            place.stat()
            return [Clip(place.name, place.parent)]
        names = sorted(_names_below(place))
    except (OSError, ValueError) as error:  # the latter: a null character
        reason = getattr(error, "strerror", error)
        raise UserError(f"cannot read {getattr(error, 'filename', None) or path}: {reason}") from error
    if not names:
        raise UserError(f"{path}: no audio in this folder: nothing in it ends in .flac, .wav or the like")
    return [Clip(name, place) for name in names]


def _names_below(folder: Path) -> Iterator[str]:
    """Yields the audio files below a folder, relative to it, with slashes."""
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        below, above = waiting.pop()
        place = folder / below
        status = place.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise UserError(f"{place} links back to a folder above it; remove the link or score the parts")
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    waiting.append((f"{below}{entry.name}/", above | {identity}))
                elif entry.name.lower().endswith(ENDINGS):
                    yield below + entry.name


def read_heads(files: Sequence[Path], samples: int) -> np.ndarray:
    """Returns recordings as clips ``(clips, samples)``, of which no more is decoded than that takes.

    Raises:
        UserError: There is one that cannot be scored.
    """
    return np.stack([fit_length(load_head(file, samples), samples) for file in files])


def spread_heads(folder: Path, count: int, samples: int) -> np.ndarray:
    """Returns up to ``count`` clips ``(clips, samples)`` spread over a folder.

    Raises:
        UserError: There is no such folder, no audio in it, or some that cannot be scored.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of audio")
    found = find_clips([folder])
    count = min(count, len(found))
    return read_heads([found[i * len(found) // count].locate() for i in range(count)], samples)


def protocol_clips(
    paths: Sequence[Path], protocol: Path, format: str | None, split: str | None
) -> list[Clip]:
    """Returns the trials of a protocol, in its order.

    Raises:
        UserError: As `read_protocol`; or there is not one folder, or no trial's audio in it.
    """
    if len(paths) != 1 or not paths[0].is_dir():
        raise UserError("--protocol takes one PATH, the folder that the recordings lie in")
    folder = paths[0].absolute()
    clips = [Clip(trial.name, folder, trial) for trial in read_protocol(protocol, format, split)]
    if not any(map(_exists, clips)):
        raise UserError(f"{paths[0]} holds the audio of no trial in {protocol}, such as {clips[0].name!r}")
    return clips


def _exists(clip: Clip) -> bool:
    try:
        return bool(clip.locate())
    except UserError:
        return False


def parity_clips(audio: Path | None, samples: int) -> tuple[np.ndarray, str]:
    """Returns clips ``(clips, samples)`` to verify a file on, and what to call them.

    Raises:
        UserError: There is no audio below the folder, or none that can be read.
    """
    if audio is None:
        return speech_like_batch(PARITY_CLIPS, samples), f"{PARITY_CLIPS} generated speech-like clips"
    clips = spread_heads(audio, PARITY_CLIPS, samples)
    return clips, f"{len(clips)} clips of {audio.resolve().name}"
