"""The folder that an app carries: model files, each signed, with golden scores, and the key to trust.

``detector.json`` lists the files, the preferred one first; ``trusted-key.pub`` is the key. Beside each file
lie its manifest, the manifest's signature and its golden scores. The apps check what is checked here, in this
order, and open nothing after a failure: the list, then of each file the signature, the manifest, the bytes,
the version, the golden scores. Any changed byte ends in a sentence. Who can change the whole app can change
the key in it, too: against that stands the signature of the app itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from antispoof.errors import UserError
from antispoof.manifest import Manifest, check_file
from antispoof.manifest_reader import read_manifest
from antispoof.signature import read_public_key
from runtimes.golden import Golden, golden_sha256, read_golden

LIST = "detector.json"
KEY = "trusted-key.pub"
SCHEMA = 1
MAX_LIST_BYTES = 4096
# SPOOF_FRAME and SPOOF_MAX_WINDOW: the clips that the streaming core gives.
MIN_SAMPLES, MAX_SAMPLES = 160, 960_000
# Plain names, of characters that mean themselves in every file system, URL and JSON.
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,126}", re.ASCII)


@dataclass(frozen=True)
class Embedded:
    """A model file of the folder, with what its signed manifest and golden scores say."""

    path: Path
    manifest: Manifest
    golden: Golden


def list_text(names: Sequence[str]) -> str:
    """Returns the one way in which `LIST` says these names."""
    return json.dumps({"schema": SCHEMA, "files": list(names)}) + "\n"


def check_name(name: str) -> None:
    """Refuses a file name that could lead elsewhere, or that means something to a shell, a URL or JSON.

    Raises:
        UserError: It is one.
    """
    if not PLAIN.fullmatch(name) or ".." in name:
        raise UserError(f"{name[:80]!r} is no plain file name: letters, digits, '-', '_' and '.' are allowed")


def read_list(folder: Path) -> tuple[str, ...]:
    """Returns the names of the model files of a folder.

    The list is not signed, and only what `list_text` writes is accepted: no byte of it can change unseen.

    Raises:
        UserError: It is missing, damaged, of another schema, or names anything but plain files.
    """
    path = folder / LIST
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LIST_BYTES + 1)
        facts = json.loads(content)
        schema, names = facts["schema"], facts["files"]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; this is no folder of embed.py") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(f"{path}: no list of files; embed the detector again") from None
    if schema != SCHEMA:
        raise UserError(f"{path}: schema {schema!r}; this version reads {SCHEMA}")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: no list of files; embed the detector again")
    for name in names:
        try:
            check_name(name)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    if list_text(names).encode() != content:
        raise UserError(f"{path}: not as it was written; embed the detector again")
    return tuple(names)


def check_folder(
    folder: Path, trusted_key: Path | None = None, accepted: Callable[[str], int] = lambda model: 0
) -> tuple[Embedded, ...]:
    """Returns the model files of a folder, none of which was opened, after everything was found right.

    Args:
        folder: The folder.
        trusted_key: The key that must have signed them; the folder's own, which must be the same, by default.
        accepted: Gives the highest version used so far of the model of this name.

    Raises:
        UserError: Something is missing, damaged, not signed, or older than what was used.
    """
    names = read_list(folder)
    own = folder / KEY
    if read_public_key(own) != read_public_key(trusted_key or own):
        raise UserError(f"{own}: another key than {trusted_key}")
    return tuple(_check(folder / name, own, accepted) for name in names)


def _check(path: Path, key: Path, accepted: Callable[[str], int]) -> Embedded:
    manifest = read_manifest(path, key)
    samples, batch = manifest.input.samples, manifest.input.batch
    if not MIN_SAMPLES <= samples <= MAX_SAMPLES:
        raise UserError(f"{path}: takes {samples} samples; the core gives {MIN_SAMPLES} to {MAX_SAMPLES}")
    if batch not in (None, 1):
        raise UserError(f"{path}: takes {batch} clips at once, and apps have one; export it for 1")
    if manifest.file is not None and manifest.file.name != path.name:
        raise UserError(f"{path}: its manifest was signed for {manifest.file.name}; embed it again")
    if not path.exists():
        raise UserError(f"{path} is missing; embed the detector again")
    check_file(manifest, path)
    if manifest.model_version < (least := accepted(manifest.model)):
        raise UserError(f"{path}: version {manifest.model_version} is older than {least}, already used")
    return Embedded(path, manifest, _check_golden(path, manifest))


def _check_golden(path: Path, manifest: Manifest) -> Golden:
    if manifest.golden_sha256 is None:
        raise UserError(f"{path}: signed without golden scores; embed it again")
    if golden_sha256(path) != manifest.golden_sha256:
        raise UserError(f"{path}: its golden scores are not those that were signed; embed it again")
    golden, _ = read_golden(path)
    return golden
