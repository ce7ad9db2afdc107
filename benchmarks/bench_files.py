"""The files that a bench makes of one model, each by the command that a user would call."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from antispoof.errors import CheckFailed, UserError
from export import to_coreml, to_onnx, to_tflite
from quantize import onnx_int8

RECIPE = "w8a8-mixed"


@dataclass(frozen=True)
class Origin:
    """What the files are made of.

    Attributes:
        model: The model's name, where it is given.
        checkpoint: A file, ``official``, ``qat``, ``random``, or None for the bundled weights.
        calibration: Folder of recordings that ranges are taken from; None for generated signals.
    """

    model: str | None
    checkpoint: str | None
    calibration: Path | None = None

    def flags(self, folder: Path, name: str) -> list[str]:
        """Returns the flags that every exporter takes."""
        given = {"--model": self.model, "--checkpoint": self.checkpoint, "--out": str(folder), "--name": name}
        return [part for flag, value in given.items() if value for part in (flag, value)]


@dataclass(frozen=True)
class Product:
    """A file that a bench makes: how its name ends, and what makes it."""

    suffix: str
    make: Callable[[Origin, Path, str], None]


def _onnx(origin: Origin, folder: Path, name: str) -> None:
    to_onnx.main(origin.flags(folder, name))


def _tiled(origin: Origin, folder: Path, name: str) -> None:
    to_onnx.main([*origin.flags(folder, name), "--time-tiles", "8"])


def _tflite(origin: Origin, folder: Path, name: str) -> None:
    to_tflite.main(origin.flags(folder, name))


def _coreml(origin: Origin, folder: Path, name: str) -> None:
    to_coreml.main(origin.flags(folder, name))


def _int8(origin: Origin, folder: Path, name: str) -> None:
    """Quantizes the ONNX file, which is made before, and gives its copy the name that was asked for."""
    source = folder / "onnx.onnx"
    if not source.exists():
        raise UserError("is made from the ONNX file, which could not be made")
    audio = ["--calibration", "all", "--audio", str(origin.calibration)] if origin.calibration else []
    onnx_int8.main([str(source), "--recipe", RECIPE, *audio])
    made = folder / f"onnx.{RECIPE}.onnx"
    if made != folder / f"{name}.onnx":
        raise ValueError(f"{made.name} is not called {name}.onnx")


PRODUCTS = {
    "onnx": Product(".onnx", _onnx),
    "onnx-8-tiles": Product(".onnx", _tiled),
    f"onnx.{RECIPE}": Product(".onnx", _int8),
    "tflite": Product(".tflite", _tflite),
    "coreml": Product(".mlpackage", _coreml),
}


def path_of(label: str, folder: Path) -> Path:
    """Returns where the file of a label lies."""
    return folder / f"{label}{PRODUCTS[label].suffix}"


def make_file(label: str, origin: Origin, folder: Path) -> None:
    """Makes one file in ``folder``.

    Raises:
        UserError: It could not be made; a check that said no is one of the reasons.
    """
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' own, which are for their authors
            PRODUCTS[label].make(origin, folder, label)
    except CheckFailed as error:
        raise UserError(f"its check failed: {error}") from error
