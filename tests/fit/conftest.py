"""What tests of training share: a corpus whose classes are plain to hear."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.fit.recordings import RATE, voice


@pytest.fixture
def largest_file() -> Iterator[Callable[[int], None]]:
    """Bounds the bytes of a file that is written, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short clips of two data sets in three splits, and a hum to add to them."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    lines = ["path\tlabel\tsplit\tdataset\tattack\tlicence"]
    for split, count in (("train", 8), ("dev", 4), ("test", 4)):
        for label in ("bonafide", "spoof"):
            for index in range(count):
                path = f"{split}-{label}-{index}.flac"
                clip = voice(generator, generator.uniform(0.3, 1.2), label == "spoof")
                soundfile.write(folder / path, clip, RATE)
                attack = "A01" if label == "spoof" else "-"
                lines.append(f"{path}\t{label}\t{split}\tset-{index % 2}\t{attack}\tCC0")
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise/hum.flac", 0.1 * generator.standard_normal(RATE), RATE)
    lines.append("noise/hum.flac\tnoise\ttrain\thums\t-\tCC0")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder
