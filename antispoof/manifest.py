"""The sidecar JSON that says what a model file takes, gives and was made from.

Written by the exporters beside every file as ``<file>.manifest.json`` and read by every runtime, here
(`antispoof.manifest_reader`) and in the apps. Its sha256 binds it to one file; a signature beside it
(`antispoof.signature`) says whose it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError

SCHEMA = 1
SUFFIX = ".manifest.json"
UNTRAINED = "random, seed "
FACTS_KEY = "antispoof"  # under which a file of any format holds `Manifest.facts`
LENGTH_RULE = "tile when shorter, head when longer"
POLARITY = "higher is bona fide"
LLR = "natural-log likelihood ratio of bona fide against spoof"


@dataclass(frozen=True)
class Input:
    """The one input: ``batch`` clips of ``samples`` float32 samples; ``batch`` None means any."""

    name: str
    batch: int | None
    samples: int
    sample_rate: int = SAMPLE_RATE
    dtype: str = "float32"
    length_rule: str = LENGTH_RULE


@dataclass(frozen=True)
class Output:
    """The one output: a score for each clip."""

    name: str
    dtype: str = "float32"
    polarity: str = POLARITY
    labels: tuple[str, str] = ("spoof", "bonafide")


@dataclass(frozen=True)
class Calibration:
    """``llr = scale * score + offset``, and the data that it was fitted on."""

    scale: float
    offset: float
    data: str

    def llr(self, score: float) -> float:
        """Returns the log-likelihood ratio of a score."""
        return self.scale * score + self.offset


@dataclass(frozen=True)
class Threshold:
    """An operating point: scores at or above ``score`` are taken for bona fide."""

    name: str
    score: float
    data: str


@dataclass(frozen=True)
class Parity:
    """How the file's scores compared with those of its source, when it was written."""

    reference: str
    clips: int
    audio: str
    max_difference: float
    tolerance: float


@dataclass(frozen=True)
class File:
    """The file that the manifest belongs to."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All that a runtime or an app needs to know about a model file.

    ``model_version`` rises with every release (0: never released), and apps refuse one below the highest that
    they have used. ``golden_sha256`` is that of ``<file>.golden.json``. Both are set when it is signed.
    """

    model: str
    config: dict[str, Any]
    weights_sha256: str
    weights: str  # where they come from; after `UNTRAINED` the seed of random ones
    format: str
    precision: str
    recipe: str
    input: Input
    output: Output
    licence: str
    tools: dict[str, str]
    calibration: Calibration | None = None
    thresholds: tuple[Threshold, ...] = ()
    parity: Parity | None = None
    file: File | None = None
    model_version: int = 0
    golden_sha256: str | None = None
    schema: int = field(default=SCHEMA)

    @property
    def untrained(self) -> bool:
        """Whether the weights are random, so that the scores say nothing."""
        return self.weights.startswith(UNTRAINED)

    def to_json(self) -> str:
        """Returns the manifest as JSON, the same bytes for the same facts."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=True) + "\n"

    def facts(self) -> str:
        """Returns what is known before the file exists, as one line of JSON to embed in it."""
        facts = asdict(self)
        for known_later in ("file", "parity", "model_version", "golden_sha256"):
            del facts[known_later]
        return json.dumps(facts, sort_keys=True, separators=(",", ":"))


def manifest_path(path: str | os.PathLike[str]) -> Path:
    """Returns where the manifest of a model file lies."""
    path = Path(path)
    return path.with_name(path.name + SUFFIX)


def put_in_place(path: Path, target: Path) -> None:
    """Moves a file and its manifest, the manifest first, so that no file stands beside another's.

    What lay at ``target`` is gone; a folder that lay there is moved to where the file comes from.
    """
    manifest_path(path).replace(manifest_path(target))
    if target.is_dir():
        target.rename(path.with_name("replaced"))  # a folder cannot be renamed onto another
    path.replace(target)


def describe_content(path: str | os.PathLike[str], content: bytes) -> File:
    """Returns the entry that binds a manifest to a file of this content."""
    return File(Path(path).name, len(content), hashlib.sha256(content).hexdigest())


def describe_file(path: str | os.PathLike[str]) -> File:
    """Returns the entry that binds a manifest to a file, or to a folder that stands for one (``.mlpackage``).

    A folder's sha256 is that of the sorted lines ``sha256  relative/path`` of its files.
    """
    path = Path(path)
    if not path.is_dir():
        return describe_content(path, path.read_bytes())
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(path).as_posix()}\n"
        for file in inside
    ]
    total = sum(file.stat().st_size for file in inside)
    return File(path.name, total, hashlib.sha256("".join(lines).encode()).hexdigest())


def check_file(manifest: Manifest, path: str | os.PathLike[str]) -> None:
    """Refuses a file or folder that is not, byte for byte, the one that the manifest was written for.

    Args:
        manifest: The manifest that lies beside it.
        path: The file or folder.

    Raises:
        UserError: It cannot be read, the manifest names no file, or its size or sha256 differ.
    """
    try:
        actual = describe_file(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    _check_same(manifest, path, actual)


def read_file(manifest: Manifest, path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a file, to run what was checked, or refuses it as `check_file` does."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    _check_same(manifest, path, describe_content(path, content))
    return content


def _check_same(manifest: Manifest, path: str | os.PathLike[str], actual: File) -> None:
    if manifest.file is None:
        raise UserError(f"{path}: its manifest names no file; export the model again")
    if actual.bytes != manifest.file.bytes:
        raise UserError(f"{path}: {actual.bytes} bytes long where its manifest says {manifest.file.bytes}")
    if actual.sha256 != manifest.file.sha256:
        raise UserError(f"{path}: sha256 differs from its manifest's; the file was changed or is another's")
