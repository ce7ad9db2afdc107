"""Writes files so that they are there whole or not at all, whatever stops the program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from antispoof.errors import UserError


@contextmanager
def put_in_place(path: Path) -> Iterator[Path]:
    """Gives a name beside ``path`` to write to, and puts what was written there in its place at the end.

    Whatever goes wrong in between, ``path`` stays what it was, and nothing is left beside it.

    Raises:
        UserError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes text, as UTF-8 with its line ends as they are, or bytes.

    Raises:
        UserError: It cannot be written.
    """
    with put_in_place(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
