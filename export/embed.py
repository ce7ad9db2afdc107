"""Puts exported files into a phone app or a page: signed, with golden scores and the key to trust.

    python export/embed.py android out/fscnn.onnx out/fscnn.tflite      # into android_demo
    python export/embed.py ios out/fscnn.mlpackage --key release.pem
    python export/embed.py web out/fscnn.onnx --into my-site/detector --key release.pem

Writes the folder of runtimes/detector_folder.py, whole or not at all, and says what an app of your own needs
beside it. The app runs the first file of the list that it can. Golden scores are made by running the file
here where there are none beside it. The files' own manifests stay as they are; the copies get a version: that
of `sign.py sign`, else one more than that of the folder that is replaced.

Without --key, a key for development is made in out/ and used from then on: release with one of your own.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.formats import format_of
from antispoof.manifest import check_file, manifest_path
from antispoof.manifest_reader import MAX_VERSION, read_manifest
from antispoof.outputs import partial_folder
from antispoof.signature import public_key_line
from export.signing import new_key, read_key, sign
from runtimes import load
from runtimes.detector_folder import KEY, LIST, Embedded, check_folder, check_name, list_text, read_list
from runtimes.golden import check_golden, golden_paths, make_golden

REPOSITORY = Path(__file__).resolve().parents[1]
DEVELOPMENT_KEY = Path("out") / "development-key.pem"
# What an app on the system can run, what the code of its demo does, and where the demo looks for it.
FORMATS = {"android": ("onnx", "tflite"), "ios": ("coreml", "onnx", "tflite"), "web": ("onnx", "tflite")}
MOST_BYTES = {"android": 1 << 29}  # as its Manifest.java: the file is held in memory
DEMO_FORMATS = {"android": ("onnx",), "ios": ("coreml",), "web": ("onnx", "tflite")}
PLACES = {
    "android": "android_demo/app/assets/detector",
    "ios": "ios_demo/App/detector",
    "web": "web_demo/detector",
}
ADVICE = {
    "android": """\
To your own app (Gradle), as android_demo/README.md has it in full:
  src/main/assets/detector            this folder
  android_demo/core                   verifies the folder, listens, decides
  android_demo/native                 the streaming core and .onnx; brings ONNX Runtime, so have no other
  androidResources {{ noCompress += "onnx" }}
  RECORD_AUDIO in AndroidManifest.xml""",
    "ios": """\
To your own app (Swift package and Xcode):
  .package(path: "ios_demo")           products SpoofCore, SpoofCoreML, SpoofAudio, SpoofSignature
  {folder}: add it as a folder reference, so that its files keep their names and places
  NSMicrophoneUsageDescription in Info.plist
  let opened = try await OpenedDetector.open(
      DetectorFolder(Bundle.main.bundleURL.appendingPathComponent("{folder}")),
      verifier: CryptoKitVerifier(), versions: UserDefaultsVersions(), formats: ["coreml"]
  ) {{ try await CoreMLDetector.load($0, cache: .cachesDirectory) }}
  let capture = try Capture(Microphone()); try capture.start()
  try Listener(capture, opened.detector, opened.model.manifest).run {{ print($0) }}   // on its own thread""",
    "web": """\
To your own page (HTML):
  copy {folder} beside it, and from web_demo engine, vendor and page/engine.js, as its README.md has it
  serve with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp
  serve over https, or from localhost: elsewhere there is no microphone""",
}


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    p = argparse.ArgumentParser(
        prog="embed.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("system", choices=sorted(FORMATS))
    p.add_argument("artifacts", type=Path, nargs="+", metavar="ARTIFACT", help="exported files, best first")
    p.add_argument("--into", type=Path, metavar="DIR", help="the folder to write (default: in the demo)")
    p.add_argument("--key", type=Path, metavar="KEY.pem", help="of `sign.py new-key`")
    p.add_argument("--force", action="store_true", help="replace the folder")
    return p


def check_artifacts(system: str, artifacts: list[Path]) -> None:
    """Refuses, before anything is made, what the system cannot run.

    Raises:
        UserError: A file is missing, of a format for elsewhere, too large, named twice or named badly.
    """
    for path in artifacts:
        if not path.exists():
            raise UserError(f"{path}: no such model file")
        if (name := format_of(path).name) not in FORMATS[system]:
            raise UserError(f"{path}: {name} files do not run on {system}; {', '.join(FORMATS[system])} do")
        check_name(path.name)
        most = MOST_BYTES.get(system)
        if most and path.stat().st_size > most:
            raise UserError(f"{path}: larger than the {most >> 20} MiB that {system}_demo takes; quantize it")
    if len({path.name for path in artifacts}) < len(artifacts):
        raise UserError("two files have the same name; rename one")
    runs = DEMO_FORMATS[system]
    if not any(format_of(path).name in runs for path in artifacts):
        wanted = " or ".join(runs)
        print(f"none of these files is {wanted}: {system}_demo refuses the folder", file=sys.stderr)


def place_of(system: str, into: Path | None, force: bool) -> Path:
    """Returns the folder to write.

    Raises:
        UserError: It exists and is not to be replaced, is something else, or there is no demo here.
    """
    place = (into or REPOSITORY / PLACES[system]).resolve()  # a link stays, and what it leads to is replaced
    if into is None and not (REPOSITORY / PLACES[system].partition("/")[0]).is_dir():
        raise UserError(f"there is no {system} demo beside this; --into names a folder")
    if not place.exists():
        return place
    if not (place / LIST).is_file() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{place} exists and is no folder of embed.py; --into names another")
    if not force and any(place.iterdir()):
        raise UserError(f"{place} exists; --force replaces it")
    return place


def version_for(place: Path, artifacts: list[Path]) -> int:
    """Returns the version that all files of the folder get, which is no lower than that of what they replace.

    Raises:
        UserError: The files were released with a lower one.
    """
    present = 0
    try:
        present = max(read_manifest(place / name).model_version for name in read_list(place))
    except UserError as error:
        if (place / LIST).exists():
            print(f"the folder that is replaced is damaged ({error}); versions begin anew", file=sys.stderr)
    own = max(read_manifest(path).model_version for path in artifacts)
    if 0 < own < present:
        raise UserError(
            f"{artifacts[0]}: version {own}, and {place} holds {present}, which apps will not go back from; "
            "sign it with a higher --model-version"
        )
    return own or min(present + 1, MAX_VERSION)


def key_for(path: Path | None) -> Any:
    """Returns the private key to sign with; makes the one for development where none is named."""
    if path is not None:
        return read_key(path)
    if not DEVELOPMENT_KEY.exists():
        new_key(DEVELOPMENT_KEY)
    print(f"signing with {DEVELOPMENT_KEY}, for development only; --key takes your own", file=sys.stderr)
    return read_key(DEVELOPMENT_KEY)


def fill(folder: Path, artifacts: list[Path], key: Any, version: int) -> tuple[Embedded, ...]:
    """Writes everything into an empty folder and reads it back as an app would.

    Raises:
        UserError: A file is not its manifest's, or cannot be run here to make its golden scores.
        CheckFailed: A file does not reproduce golden scores that lay beside it.
    """
    (folder / KEY).write_text(public_key_line(key.public_key().public_bytes_raw()), encoding="ascii")
    (folder / LIST).write_text(list_text([path.name for path in artifacts]), encoding="ascii")
    for path in artifacts:
        check_file(read_manifest(path), path)
        copy = folder / path.name
        if path.is_dir():
            shutil.copytree(path, copy)
        else:
            shutil.copyfile(path, copy)
        shutil.copyfile(manifest_path(path), manifest_path(copy))
        for source, target in zip(golden_paths(path), golden_paths(copy), strict=True):
            if source.exists():
                shutil.copyfile(source, target)
        if not golden_paths(copy)[0].exists():
            make_golden(load(copy), folder)
        sign(copy, key, version)
    checked = check_folder(folder)
    for embedded in checked:
        check_golden(load(embedded.path, trusted_key=folder / KEY))
    return checked


def put(folder: Path, place: Path) -> None:
    """Moves a folder to where there may be another, which is gone afterwards."""
    if place.exists():
        replaced = folder.with_name("replaced")
        place.rename(replaced)  # a folder cannot be renamed onto another that is not empty
        try:
            folder.rename(place)
        except BaseException:  # an interruption too: what was there would go with the unfinished folder
            replaced.rename(place)
            raise
    else:
        folder.rename(place)


def table(place: Path, checked: tuple[Embedded, ...]) -> str:
    """Returns what was written, one file a line."""
    lines = [str(place)]
    for embedded in checked:
        manifest, golden = embedded.manifest, embedded.golden
        assert manifest.file is not None
        size = f"{manifest.file.bytes / 1024:.0f} KiB"
        clips = f"{golden.clips} golden clips to {golden.tolerance:g}"
        lines.append(f"  {embedded.path.name}  {size}, version {manifest.model_version}, {clips}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    check_artifacts(args.system, args.artifacts)
    place = place_of(args.system, args.into, args.force)
    version = version_for(place, args.artifacts)
    key = key_for(args.key)
    with partial_folder(place.parent) as partial:
        folder = partial / place.name
        folder.mkdir()
        checked = fill(folder, args.artifacts, key, version)
        put(folder, place)
    print(table(place, checked))
    for embedded in checked:
        if embedded.manifest.untrained:
            print(
                f"{embedded.path.name} has random weights: what an app says of it means nothing",
                file=sys.stderr,
            )
    if args.into is not None:
        print("\n" + ADVICE[args.system].format(folder=place.name))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
