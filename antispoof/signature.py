"""Whose a model file is: an Ed25519 signature over its manifest, which holds the file's sha256.

So one key, which an app carries, vouches for everything: key -> manifest -> model file and golden scores.
``<file>.manifest.json.sig`` holds the 64 bytes of RFC 8032 over `PREFIX` and the manifest's exact bytes; the
prefix keeps a signature made for anything else from being one of a manifest. A public key is kept as one line
of base64. Making keys and signing is `export.signing`'s.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from antispoof.errors import UserError

SUFFIX = ".sig"
PUBLIC_SUFFIX = ".pub"
PREFIX = b"antispoof manifest 1\n"
KEY_BYTES = 32
SIGNATURE_BYTES = 64


def signature_path(manifest: Path) -> Path:
    """Returns where the signature of a manifest lies."""
    return manifest.with_name(manifest.name + SUFFIX)


def public_key_line(key: bytes) -> str:
    """Returns what a file with this public key ``(32 bytes)`` holds."""
    return base64.b64encode(key).decode() + "\n"


def read_public_key(path: str | os.PathLike[str]) -> bytes:
    """Returns the 32 bytes of a public key.

    Raises:
        UserError: It is missing, or anything but one line of base64. Base64 has spare bits; a key whose
            spare bits were changed is refused too, so that a changed file never passes for the same key.
    """
    content = _read(Path(path), 2 * SIGNATURE_BYTES, "name the public key that is trusted (KEY.pem.pub)")
    try:
        key = base64.b64decode(content.rstrip(b"\n"), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or public_key_line(key).encode() != content:
        raise UserError(f"{path}: no public key; it is one line of base64, as `sign.py new-key` writes it")
    return key


def check_signature(content: bytes, manifest: Path, trusted_key: Path) -> None:
    """Refuses a manifest that the trusted key has not signed.

    Args:
        content: The manifest's exact bytes, which are to be used after this.
        manifest: Where they were read from; the signature lies beside.
        trusted_key: The file of the public key.

    Raises:
        UserError: A key or signature is missing or damaged, or they do not fit.
    """
    key = read_public_key(trusted_key)
    path = signature_path(manifest)
    signature = _read(path, SIGNATURE_BYTES, "sign the model (export/sign.py)")
    if len(signature) != SIGNATURE_BYTES:
        raise UserError(f"{path}: a signature has {SIGNATURE_BYTES} bytes; sign the model again")
    if not verifies(key, signature, PREFIX + content):
        raise UserError(
            f"{manifest}: not signed by {trusted_key}: changed since, or another's; sign it or get it again"
        )


def verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    """Says whether a signature ``(64 bytes)`` of a message is that of a public key ``(32 bytes)``.

    Raises:
        UserError: The cryptography package is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise UserError("cryptography is not installed: pip install 'antispoof[sign]'") from error
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _read(path: Path, most: int, todo: str) -> bytes:
    """Returns a small file, or one byte more than ``most`` of a larger one."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {todo}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
