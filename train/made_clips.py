"""Folders of clips that a command made: FLAC files and the list of them, read again by `train.dataset`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from antispoof.audio import SAMPLE_RATE
from antispoof.outputs import write_whole


def write_clip(path: Path, waveform: np.ndarray) -> None:
    """Writes ``waveform (samples,)`` at 16 kHz in 16 bits, whole or not at all."""
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    write_whole(path, encoded.getvalue())


def write_list(folder: Path, columns: Sequence[str], lines: Iterable[Mapping[str, str]]) -> Path:
    """Writes manifest.tsv, a line for each clip with the columns in their order; returns its path."""
    path = folder / "manifest.tsv"
    table = [columns, *([line[column] for column in columns] for line in lines)]
    write_whole(path, "".join("\t".join(fields) + "\n" for fields in table))
    return path
