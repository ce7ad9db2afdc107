"""Reads lists that are text, one row per line, and refuses what is not such a list."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

from antispoof.errors import UserError

LONGEST_LINE = 65_536  # bytes; a longer one means that the file is no list

_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields each line that is not blank with its number, from 1, in constant memory.

    Raises:
        UserError: the file cannot be read or is not UTF-8 text.
    """
    try:
        with path.open("rb") as handle:
            for number, raw in enumerate(iter(lambda: handle.readline(LONGEST_LINE), b""), start=1):
                text = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
                text = text.rstrip(b"\r\n")
                if len(raw) == LONGEST_LINE or _CONTROL.search(text):
                    raise UserError(f"{path}:{number}: this is not a text file of one entry per line")
                try:
                    line = text.decode()
                except UnicodeDecodeError:
                    raise UserError(f"{path}:{number}: this line is not UTF-8 text") from None
                if line.strip():
                    yield number, line
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def split_fields(line: str, delimiter: str | None) -> list[str]:
    """Returns the fields of a line without the blanks around them; a comma delimits as in CSV.

    Raises:
        ValueError: a quotation mark is not closed.
    """
    if delimiter != ",":
        return [field.strip() for field in line.split(delimiter)]
    try:
        return [field.strip() for field in next(csv.reader([line], strict=True))]
    except csv.Error as error:
        raise ValueError(f"it is not CSV ({error})") from None


def header_columns(names: list[str]) -> dict[str, int]:
    """Returns which column has which name.

    Raises:
        ValueError: a name stands twice.
    """
    columns = {name: column for column, name in enumerate(names)}
    if len(columns) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the column {twice!r} stands in the header twice")
    return columns


def finite_number(text: str) -> float:
    """Returns the number that ``text`` spells.

    Raises:
        ValueError: it is no number, or NaN or infinite.
    """
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
