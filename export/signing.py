"""Makes keys, and signs model files: what apps verify before they open one (`antispoof.signature`)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from antispoof.errors import UserError
from antispoof.manifest import Manifest, check_file, manifest_path
from antispoof.manifest_reader import MAX_VERSION, read_manifest
from antispoof.outputs import write_whole
from antispoof.signature import PREFIX, PUBLIC_SUFFIX, public_key_line, signature_path
from runtimes.golden import golden_paths, golden_sha256, read_golden


def public_path(key: Path) -> Path:
    """Returns where the public half of a private key lies."""
    return key.with_name(key.name + PUBLIC_SUFFIX)


def new_key(path: Path) -> None:
    """Writes a new private key, which only its owner can read, and its public half beside it.

    Raises:
        UserError: Either exists (what an old key has signed cannot be signed again without it), or cannot
            be written.
    """
    serialization, ed25519 = _cryptography()
    if existing := [file for file in (path, public_path(path)) if file.exists()]:
        raise UserError(f"{existing[0]} exists, and a key is never replaced; choose another name")
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made with these rights rather than given them later, when somebody may have opened it.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        public_path(path).write_text(public_key_line(key.public_key().public_bytes_raw()), encoding="ascii")
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error


def read_key(path: Path) -> Any:
    """Returns a private key.

    Raises:
        UserError: It is missing, or no unencrypted Ed25519 key.
    """
    serialization, ed25519 = _cryptography()
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `sign.py new-key {path}` makes one") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError):  # the latter: it is encrypted
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UserError(
            f"{path}: no private key as `sign.py new-key` writes it (Ed25519, PEM, not encrypted)"
        )
    return key


def sign(model_file: Path, key: Any, version: int | None = None) -> Manifest:
    """Signs a model file, and the golden scores beside it where there are any; returns its manifest.

    Args:
        model_file: An exported file, its manifest beside it, which is written anew with its present name.
        key: Of `read_key`.
        version: Of the model; by default one more than that of the last signature, 1 for the first.

    Raises:
        UserError: The file is not its manifest's, the golden scores are damaged, or the version would fall.
    """
    manifest = read_manifest(model_file)
    check_file(manifest, model_file)
    assert manifest.file is not None
    manifest = replace(
        manifest,
        file=replace(manifest.file, name=model_file.name),
        model_version=_next_version(model_file, manifest, version),
        golden_sha256=_golden(model_file),
    )
    content = manifest.to_json().encode()
    sidecar = manifest_path(model_file)
    # Whichever of the two is put in place first, the pair is refused until the other is.
    write_whole(sidecar, content)
    write_whole(signature_path(sidecar), key.sign(PREFIX + content))
    return manifest


def _next_version(model_file: Path, manifest: Manifest, wanted: int | None) -> int:
    last = manifest.model_version
    if wanted is None:
        if not last and signature_path(manifest_path(model_file)).exists():
            raise UserError(
                f"{model_file}: exported anew since it was signed, so its last version is not known; "
                "--model-version N says which this is, above all that were released"
            )
        wanted = last + 1
    if not 1 <= wanted <= MAX_VERSION:
        raise UserError(f"--model-version takes 1 to {MAX_VERSION}, not {wanted}")
    if wanted < last:
        raise UserError(f"{model_file} has version {last}, and apps refuse a lower one; {wanted} would be")
    return wanted


def _golden(model_file: Path) -> str | None:
    """Returns the hash of the golden scores, if there are any and they are whole."""
    if not golden_paths(model_file)[0].exists():
        return None
    read_golden(model_file)
    return golden_sha256(model_file)


def _cryptography() -> tuple[Any, Any]:
    # Not our own arithmetic: it signs in constant time, and others have looked for its faults.
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UserError("cryptography is not installed: pip install 'antispoof[sign]'") from error
    return serialization, ed25519
