"""The table of scores, and the file that an unfinished one is kept in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from antispoof.errors import UserError
from antispoof.manifest import Calibration, Manifest, Threshold, describe_file
from antispoof.protocols import BONAFIDE, SPOOF
from runtimes.clips import Clip

MAX_HEADER_BYTES = 4096


class Row(NamedTuple):
    """What became of a clip: a score, in the fewest digits that give the same float32, or a problem."""

    name: str
    score: str | None
    problem: str | None = None


@dataclass(frozen=True)
class Table:
    """The columns of the table: path, score and what the manifest can add to them."""

    calibration: Calibration | None = None
    threshold: Threshold | None = None

    def header(self) -> str:
        """Returns the first line."""
        extra = {"llr": self.calibration, "decision": self.threshold or self.calibration}
        return "\t".join(["path", "score", *(name for name, source in extra.items() if source)]) + "\n"

    def line(self, name: str, score: str) -> str:
        """Returns the line of a score."""
        fields = [name, score]
        value = float(score)
        llr = self.calibration.llr(value) if self.calibration else None
        if llr is not None:
            fields.append(f"{llr:.9g}")  # as exact as a float32
        if self.threshold:
            fields.append(BONAFIDE if value >= self.threshold.score else SPOOF)
        elif llr is not None:
            fields.append(BONAFIDE if llr >= 0 else SPOOF)
        return "\t".join(fields) + "\n"

    def write(self, rows: Iterable[Row], handle: TextIO) -> list[Row]:
        """Writes the rows that have a score, after a header if there are any; returns the others."""
        failed, header = [], self.header()
        for row in rows:
            if row.score is None:
                failed.append(row)
                continue
            handle.write(header + self.line(row.name, row.score))
            handle.flush()
            header = ""
        return failed


def table_of(manifest: Manifest | None, threshold: str | None) -> Table:
    """Returns the table that a manifest allows, deciding at the operating point of this name.

    Raises:
        UserError: There is no such operating point.
    """
    thresholds = manifest.thresholds if manifest else ()
    calibration = manifest.calibration if manifest else None
    if threshold is None:
        return Table(calibration, thresholds[0] if thresholds else None)
    for point in thresholds:
        if point.name == threshold:
            return Table(calibration, point)
    known = ", ".join(point.name for point in thresholds) or "none"
    raise UserError(f"no threshold {threshold!r}; the model has {known}")


class Partial:
    """The rows done so far, in a file beside the table to be, after a line that says of what they are.

    Attributes:
        path: The file.
        clips: What is to be scored.
        done: How many of ``clips``, from the first, have a row.
    """

    def __init__(self, path: Path, conditions: dict[str, str], clips: Sequence[Clip], *, force: bool) -> None:
        """Opens the rows of an interrupted run under the same conditions, or begins anew.

        Raises:
            UserError: The file is of other conditions and ``force`` is off, or is damaged.
        """
        self.path, self.clips, self.done = path, clips, 0
        self.handle: BinaryIO = path.open("r+b" if path.exists() else "x+b")
        try:
            self._take_up(conditions, force)
        except BaseException:
            self.handle.close()
            raise

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()

    def _take_up(self, conditions: dict[str, str], force: bool) -> None:
        header = json.dumps(conditions, sort_keys=True).encode() + b"\n"
        first = self.handle.readline(MAX_HEADER_BYTES)
        if first == header:
            self.done = sum(1 for _ in self.rows())
        elif header.startswith(first) or force:  # new, or cut while its first line was written; or given up
            self.handle.seek(0)
            self.handle.write(header)
        else:
            other = _whose(first, conditions)
            raise UserError(f"{self.path} is {other}; finish that run, or begin anew with --force")
        self.handle.truncate()  # what is left of a row that was cut

    def rows(self) -> Iterator[Row]:
        """Yields the rows that are there and leaves the file at the end of the last whole one."""
        self.handle.seek(0)
        end = len(self.handle.readline())
        for index, clip in enumerate(self.clips):
            line = self.handle.readline()
            if index >= self.done and not line.endswith(b"\n"):
                break
            try:
                row = Row(*json.loads(line))
                damaged = row.name != clip.name or not math.isfinite(float(row.score or 0))
            except (ValueError, TypeError):
                damaged = True
            if damaged:
                raise UserError(f"{self.path} is damaged, or two runs wrote to it; remove it to begin anew")
            end += len(line)
            yield row
        self.handle.seek(end)

    def append(self, row: Row) -> None:
        """Adds a row and hands it to the system at once, so that a killed process loses none."""
        self.handle.write(json.dumps(row).encode() + b"\n")
        self.handle.flush()
        self.done += 1


def _whose(header: bytes, conditions: dict[str, str]) -> str:
    """Returns how a partial file with another header differs from what was wanted."""
    try:
        found = json.loads(header)
        other = [key for key, value in conditions.items() if found[key] != value]
    except (ValueError, TypeError, KeyError):
        return "no file of this command"
    return f"of another {' and another '.join(other)}"


def conditions_of(model_file: Path, model: str | None, clips: Iterable[Clip]) -> dict[str, str]:
    """Returns what must stay the same for scores of two runs to stand in one table."""
    listed = hashlib.sha256()
    for clip in clips:
        listed.update(f"{clip.folder}\0{clip.name}\0".encode(errors="surrogatepass"))
    content = describe_file(model_file).sha256
    return {"model": f"{content} {model or ''}".strip(), "list of files": listed.hexdigest()}
