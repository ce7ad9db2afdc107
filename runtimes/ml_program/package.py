"""Opens a ``.mlpackage`` folder: where its model and weights lie, and that they lie inside it."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from antispoof.errors import UserError
from runtimes.ml_program import schema
from runtimes.ml_program.blobs import Blobs
from runtimes.ml_program.program import Program, read_program
from runtimes.ml_program.wire import WireError, decode

MANIFEST = "Manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 1 << 31  # protobuf's own limit
MODEL_PATH = "@model_path/"


def read_package(path: Path) -> Program:
    """Returns the program that a package holds, its weights still in their file.

    Raises:
        UserError: Something is missing, damaged, outside the package or no ML Program.
    """
    try:
        model_file = _model_file(path)
        blobs = Blobs(lambda name: _inside(path, model_file.parent, name.removeprefix(MODEL_PATH)))
        message = decode(memoryview(_read(model_file, MAX_MODEL_BYTES)), schema.MODEL)
        return read_program(message, blobs)
    except WireError as error:
        raise UserError(f"{path}: its model is damaged or no Core ML model ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (UserError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: {error}") from error


def _model_file(package: Path) -> Path:
    """Returns the file that the package's own manifest calls its model."""
    if not package.is_dir():
        raise UserError("not a folder, and so no Core ML package")
    try:
        manifest = json.loads(_read(_inside(package, package, MANIFEST), MAX_MANIFEST_BYTES))
        relative = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"its {MANIFEST} does not say where the model lies") from None
    return _inside(package, package / "Data", relative)


def _inside(package: Path, folder: Path, relative: Any) -> Path:
    """Returns ``folder / relative`` if that is a file of the package, links followed."""
    parts = PurePosixPath(relative).parts if isinstance(relative, str) and "\0" not in relative else ("..",)
    target = folder.joinpath(*parts)
    name = str(relative)[:80]
    try:
        if ".." in parts or not target.resolve().is_relative_to(package.resolve()):
            raise UserError(f"names a file outside itself ({name!r})")
        found = target.is_file()
    except (OSError, RuntimeError):  # a name too long, a link to itself
        found = False
    if not found:
        raise UserError(f"{name!r} is missing")
    return target


def _read(file: Path, limit: int) -> bytes:
    if file.stat().st_size > limit:
        raise UserError(f"{file.name} is larger than {limit} bytes")
    return file.read_bytes()
