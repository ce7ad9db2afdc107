"""The file formats a detector is stored in, one row each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from antispoof.errors import UserError
from antispoof.lowering import Lowering

# Half precision keeps three digits, which leaves AASIST-L 0.003 of a score off at the median. Where two
# nodes of its graph pooling nearly tie they change places, and the score of that clip moves by up to 0.14:
# on 13 of 200 clips beyond 0.02, or 7 if the pools compare by differences, as for the Neural Engine. Those 7
# are the encoder's own rounding. Such a clip fails the check, rightly, since what it shows is that the file
# may answer otherwise.
HALF_TOLERANCE = 0.02


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: What commands and manifests call it.
        suffixes: How such files end; the first is the one that exporters write.
        extra: The optional dependency set that brings its libraries.
        runtime: The module whose ``open_runtime`` runs such files.
        platforms: Where such a file can be run.
        lowering: How a network is put for the runtime of such files (see `antispoof.lowering`).
        tolerance: Largest difference in score from PyTorch, in float32, that an export may have.
            Scores of the AASIST family span about +-15, so 1e-4 is a few float32 roundings of the
            largest intermediate values and far below any threshold's own uncertainty.
    """

    name: str
    suffixes: tuple[str, ...]
    extra: str
    runtime: str
    platforms: str
    lowering: Lowering
    tolerance: float

    def tolerance_of(self, precision: str) -> float:
        """Returns the largest difference that an export of this precision may have."""
        return self.tolerance if precision == "float32" else max(self.tolerance, HALF_TOLERANCE)

    def path_in(self, folder: Path, stem: str) -> Path:
        """Returns where a file of this format is written.

        Raises:
            UserError: What was said to be the folder is called like a file of the format, and is none.
        """
        if folder.suffix.lower() in self.suffixes and not folder.is_dir():
            raise UserError(f"{folder}: --out takes the folder, not the file")
        return folder / f"{stem}{self.suffixes[0]}"


FORMATS = (
    Format(
        "torch",
        (".safetensors", ".pth", ".pt", ".ckpt", ".bin"),
        "",
        "runtimes.eager",
        "wherever PyTorch runs",
        Lowering(),
        1e-4,
    ),
    Format(
        "onnx",
        (".onnx",),
        "onnx",
        "runtimes.ort",
        "Linux, macOS, Windows, Android, iOS, browsers",
        Lowering(scan="onnx"),
        1e-4,
    ),
    Format(
        "tflite",
        (".tflite",),
        "tflite",
        "runtimes.litert",
        "Android, Linux, macOS, Windows, iOS, microcontrollers",
        Lowering(scan="static", elu="unit", compare="arithmetic", time_tiles=8),
        1e-4,
    ),
    Format(
        "coreml",
        (".mlpackage",),
        "coreml",
        "runtimes.mlpackage",
        "iOS, macOS; evaluated on Linux",
        Lowering(scan="static"),
        1e-4,
    ),
)


def format_named(name: str) -> Format:
    """Returns the row called ``name``."""
    return next(row for row in FORMATS if row.name == name)


def format_of(path: str | os.PathLike[str]) -> Format:
    """Returns the row of a file, by how its name ends.

    Raises:
        UserError: No format ends so.
    """
    suffix = Path(path).suffix.lower()
    for row in FORMATS:
        if suffix in row.suffixes:
            return row
    known = ", ".join(suffix for row in FORMATS for suffix in row.suffixes)
    raise UserError(f"{path}: not a model file; those end in one of {known}")
