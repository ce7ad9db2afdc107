"""Where results go: folders to write into, the cache, and files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from antispoof.errors import UserError


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes text, as UTF-8 with its line ends as they are, or bytes; replaces a file that exists.

    Whatever goes wrong, ``path`` stays what it was, and nothing is left beside it.

    Raises:
        UserError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def refuse_to_replace(paths: Iterable[Path], force: bool) -> None:
    """Raises `UserError` where one of the files exists; call it before long work."""
    if not force and (existing := next(filter(Path.exists, paths), None)):
        raise UserError(f"{existing} exists; --force replaces it")


def refuse_existing(path: Path, force: bool) -> None:
    """Raises `UserError` where a file may not or cannot be written; call it before long work."""
    refuse_to_replace([path], force)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"cannot write {path}: {above} is no folder that may be written into")


def make_folder(path: Path) -> None:
    """Makes a folder, and those that it lies in, to write into.

    Raises:
        UserError: It cannot be made, is a file, or may not be written into.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror or error}") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"cannot write into {path}: no permission")


@contextlib.contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """Gives a folder inside ``out`` that is gone afterwards, as is an ``out`` that was made in vain.

    Raises:
        UserError: It cannot be made.
    """
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made and not any(out.iterdir()):
            out.rmdir()


def cache_folder() -> Path:
    """Returns where what can be had again is kept: ``$ANTISPOOF_CACHE``, else the user's cache folder."""
    if own := os.environ.get("ANTISPOOF_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "antispoof"
