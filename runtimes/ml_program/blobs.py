"""Reads weights from ``weight.bin``: blobs of 64-byte headers and aligned data, little-endian.

The file begins with a header of 64 bytes (how many blobs, version of the layout). Each blob has a
header of its own: a mark, the type of the elements, the size of the data in bytes and its offset in
the file. Elements narrower than a byte follow one another bit by bit, the lowest bits first.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError
from runtimes.ml_program.schema import BLOB_TYPES

FILE_HEADER = struct.Struct("<II")  # blobs, version
BLOB_HEADER = struct.Struct("<IIQQQ")  # mark, type, bytes, offset of the data, bits of padding
HEADER_BYTES = 64
VERSION = 2
MARK = 0xDEADBEEF


class Blobs:
    """The weight files of one package, each opened when it is first asked for."""

    def __init__(self, locate: Callable[[str], Path]) -> None:
        """Takes the function that turns a name in the program into a file of the package."""
        self.locate = locate
        self.files: dict[str, np.ndarray] = {}

    def read(self, name: str, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the elements of the blob at ``offset`` of the file ``name``.

        Raises:
            UserError: The file is damaged, or the blob is of another type or size.
        """
        if name not in self.files:
            self.files[name] = _open(self.locate(name))
        content = self.files[name]
        where = f"{name.rpartition('/')[2]} at byte {offset}"
        if not HEADER_BYTES <= offset <= len(content) - HEADER_BYTES:
            raise UserError(f"{where}: outside the file of {len(content)} bytes")
        mark, kind, size, start, _ = BLOB_HEADER.unpack_from(content.data, offset)
        if mark != MARK:
            raise UserError(f"{where}: no weight begins there")
        if BLOB_TYPES.get(kind) != dtype:
            raise UserError(f"{where}: holds {BLOB_TYPES.get(kind, f'type {kind}')}, not {dtype}")
        if start + size > len(content):
            raise UserError(f"{where}: cut off; its data ends at {start + size} of {len(content)} bytes")
        try:
            return elements(content[start : start + size], dtype, shape)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None


def _open(path: Path) -> np.ndarray:
    if path.stat().st_size < HEADER_BYTES:
        raise UserError(f"{path.name}: cut off")
    content = np.memmap(path, np.uint8, "r")
    _, version = FILE_HEADER.unpack_from(content.data)
    if version != VERSION:
        raise UserError(f"{path.name}: no weight file of version {VERSION}")
    return content


def elements(content: np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns bytes as an array; elements narrower than a byte become one byte each.

    Raises:
        ValueError: The bytes are too few or too many.
    """
    width = _bits(dtype)
    count = math.prod(shape)
    if len(content) != -(-count * width // 8):
        raise ValueError(f"{len(content)} bytes do not make {dtype} {shape}")
    if width >= 8:
        return content.view(np.dtype(dtype).newbyteorder("<")).reshape(shape)
    bits = np.unpackbits(content, count=count * width, bitorder="little").reshape(-1, width)
    values = (bits << np.arange(width, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
    if dtype.startswith("int"):
        signed: Any = values.astype(np.int8)
        values = signed - ((signed >> (width - 1)) << width)
    return values.reshape(shape)


def _bits(dtype: str) -> int:
    digits = dtype.lstrip("abcdefghijklmnopqrstuvwxyz")
    return int(digits) if digits else 8  # bool
