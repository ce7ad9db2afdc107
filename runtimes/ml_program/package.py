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
    model_file = _model_file(path)
    blobs = Blobs(lambda name: _inside(path, model_file.parent, name.removeprefix(MODEL_PATH)))
    try:
        message = decode(memoryview(_read(model_file, MAX_MODEL_BYTES, path)), schema.MODEL)
        return read_program(message, blobs)
    except WireError as error:
        raise UserError(f"{path}: {model_file.name} is damaged or no Core ML model ({error})") from error
    except (UserError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: {error}") from error


def _model_file(path: Path) -> Path:
    """Returns the file that the package's own manifest calls its model."""
    if not path.is_dir():
        raise UserError(f"{path}: not a folder, and so no Core ML package")
    try:
        manifest = json.loads(_read(path / MANIFEST, MAX_MANIFEST_BYTES, path))
        relative = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: its {MANIFEST} does not say where the model lies") from None
    return _inside(path, path / "Data", relative)


def _inside(package: Path, folder: Path, relative: Any) -> Path:
    """Returns ``folder / relative`` if that is a file of the package, links followed."""
    parts = PurePosixPath(relative).parts if isinstance(relative, str) and "\0" not in relative else ("..",)
    target = folder.joinpath(*parts)
    if ".." in parts or not target.resolve().is_relative_to(package.resolve()):
        raise UserError(f"{package}: names a file outside itself ({str(relative)[:80]!r})")
    if not target.is_file():
        raise UserError(f"{package}: {target.relative_to(package)} is missing")
    return target


def _read(file: Path, limit: int, package: Path) -> bytes:
    try:
        if file.stat().st_size > limit:
            raise UserError(f"{package}: {file.name} is larger than {limit} bytes")
        return file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{package}: {file.relative_to(package)} is missing") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
