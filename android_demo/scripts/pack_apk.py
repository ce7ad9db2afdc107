"""Packs an APK whose libraries can be mapped as they lie in it, by phones with pages of 16 KB too.

    python3 android_demo/scripts/pack_apk.py BASE.apk OUT.apk NAME=FILE...

Takes over the entries of BASE.apk and adds each FILE as NAME. What is stored uncompressed begins at a
multiple of 4 bytes, libraries at one of 16,384; the zipalign that Debian has knows 4,096 only. How an entry
is aligned is written down with it, so that apksigner keeps it.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path

PAGE = 16_384
WORD = 4
ALIGNMENT_FIELD = 0xD935  # of Android's build tools: u16 id, u16 size, u16 multiple, zeros
LOCAL_HEADER = 30  # bytes, before the name
DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same files make the same APK
STORED = (".so", ".onnx", ".arsc")


def alignment_of(name: str) -> int:
    """Returns the multiple at which a stored entry begins."""
    return PAGE if name.endswith(".so") else WORD


def add(apk: zipfile.ZipFile, name: str, content: bytes, compressed: bool) -> None:
    """Writes an entry, aligned if it is stored."""
    info = zipfile.ZipInfo(name, DATE)
    info.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    if not compressed:
        assert apk.fp is not None
        fixed = struct.pack("<HHH", ALIGNMENT_FIELD, 0, alignment_of(name))
        begin = apk.fp.tell() + LOCAL_HEADER + len(name.encode()) + len(fixed)
        padding = -begin % alignment_of(name)
        info.extra = struct.pack("<HHH", ALIGNMENT_FIELD, 2 + padding, alignment_of(name)) + bytes(padding)
    apk.writestr(info, content)


def pack(base: Path, out: Path, files: dict[str, Path]) -> None:
    """Writes the APK."""
    with zipfile.ZipFile(base) as source, zipfile.ZipFile(out, "w") as apk:
        for entry in source.infolist():
            stored = entry.compress_type == zipfile.ZIP_STORED or entry.filename.endswith(STORED)
            add(apk, entry.filename, source.read(entry), not stored)
        for name, file in files.items():
            add(apk, name, file.read_bytes(), not name.endswith(STORED))


if __name__ == "__main__":
    added = (argument.partition("=") for argument in sys.argv[3:])
    pack(Path(sys.argv[1]), Path(sys.argv[2]), {name: Path(file) for name, _, file in added})
