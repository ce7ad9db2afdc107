"""Signs model files, so that an app opens only what its maker has released.

    python export/sign.py new-key release.pem              # and release.pem.pub, which the app carries
    python export/sign.py sign out/fscnn.onnx --key release.pem
    python export/sign.py verify out/fscnn.onnx --trusted-key release.pem.pub
    python export/sign.py verify app/assets/detector       # a folder of embed.py, by the key in it

Signing writes FILE.manifest.json.sig and raises the model's version in the manifest: apps refuse a version
below one that they have used, so that nobody can bring back a detector with a known hole. A private key
belongs to no repository; whoever has it can make apps open anything.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.manifest import check_file
from antispoof.manifest_reader import read_manifest
from export.signing import new_key, public_path, read_key, sign
from runtimes.detector_folder import check_folder


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = argparse.ArgumentParser(
        prog="sign.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("new-key", help="make a private key and its public half")
    p.add_argument("key", type=Path, metavar="KEY.pem")
    p = commands.add_parser("sign", help="sign exported files")
    p.add_argument("model_files", type=Path, nargs="+", metavar="FILE")
    p.add_argument("--key", type=Path, required=True, metavar="KEY.pem")
    p.add_argument(
        "--model-version", type=int, metavar="N", help="default: one more than at the last signature"
    )
    p = commands.add_parser("verify", help="say whether a file, or a folder of embed.py, is to be trusted")
    p.add_argument("model_files", type=Path, nargs="+", metavar="FILE")
    p.add_argument("--trusted-key", type=Path, metavar="FILE", help="default for a folder: the key in it")
    p.add_argument("--least-version", type=int, default=0, metavar="N", help="refuse versions below it")
    return parser


def verify(path: Path, trusted_key: Path | None, least_version: int) -> str:
    """Returns what was found to be right, in a line.

    Raises:
        UserError: Something was not.
    """
    if path.is_dir() and path.suffix != ".mlpackage":
        found = check_folder(path, trusted_key, lambda model: least_version)
        names = ", ".join(detector.path.name for detector in found)
        return f"{path}: {names}, version {max(d.manifest.model_version for d in found)}, signed and whole"
    if trusted_key is None:
        raise UserError(f"{path}: --trusted-key names the public key that should have signed it")
    manifest = read_manifest(path, trusted_key)
    check_file(manifest, path)
    if manifest.model_version < least_version:
        raise UserError(f"{path}: version {manifest.model_version}, older than {least_version}")
    return f"{path}: {manifest.model}, version {manifest.model_version}, signed and whole"


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    if args.command == "new-key":
        new_key(args.key)
        print(f"{args.key}: keep it, and keep it secret\n{public_path(args.key)}: what apps carry")
    elif args.command == "sign":
        key = read_key(args.key)
        for path in args.model_files:  # before any is signed
            check_file(read_manifest(path), path)
        for path in args.model_files:
            manifest = sign(path, key, args.model_version)
            golden = "with" if manifest.golden_sha256 else "without"
            print(f"{path}: signed, version {manifest.model_version}, {golden} golden scores")
    else:
        for path in args.model_files:
            print(verify(path, args.trusted_key, args.least_version))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
