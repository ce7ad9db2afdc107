"""Runs the app's own ONNX Runtime, made for Android, on this machine, and checks its golden scores.

    python3 android_demo/scripts/run_android_library.py OUT DETECTOR...

The library for x86_64 runs as it is, that for arm64 in an emulator; native/desktop/shim.c stands in for what
Android's C library has and this machine's has not. Each DETECTOR is a folder of `antispoof embed android`.
On this processor integers with a reduced range must give the golden scores to the bit. On another their
float front end rounds otherwise, and now and then an integer behind it becomes its neighbour: there, and for
all else, the tolerance of the golden scores holds. Prints one line that begins with SKIPPED for what cannot
be run here; exits with 1 where a score is off.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
NATIVE = SCRIPTS.parent / "native"
EMPTY = ("libm.so", "libdl.so", "liblog.so", "libandroid.so")  # what they have, the C library here has
ARM_ROOT = Path("/usr/aarch64-linux-gnu")  # of Debian's cross compiler
ARM_CPUS = ("cortex-a53", "cortex-a76")  # without and with instructions for integer products

# ELF: a dynamic section's tags for symbol versions, and one that means nothing.
DYNAMIC = 2
VERSION_TAGS = {0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF}
NO_TAG = 0x6FFFFD00


class Missing(Exception):
    """Something that it takes cannot be had here."""


def get_tools(what: str) -> Path:
    """Returns the folder of the tools."""
    done = subprocess.run([SCRIPTS / "get-tools.sh", what], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(done.stdout.strip() or done.stderr.strip()[-200:])
    return Path(done.stdout.strip())


def without_versions(library: bytes) -> bytes:
    """Returns a 64-bit library that asks for symbols by name alone: Android's versions are not glibc's."""
    content = bytearray(library)
    (headers,) = struct.unpack_from("<Q", content, 32)
    (count,) = struct.unpack_from("<H", content, 56)
    for i in range(count):
        kind, _, begin, _, _, size = struct.unpack_from("<IIQQQQ", content, headers + 56 * i)
        if kind != DYNAMIC:
            continue
        for at in range(begin, begin + size, 16):
            if struct.unpack_from("<Q", content, at)[0] in VERSION_TAGS:
                struct.pack_into("<Q", content, at, NO_TAG)
    return bytes(content)


def build(compiler: str, library: Path, headers: Path, out: Path) -> Path:
    """Makes a folder with the library, what stands in for Android around it, and the program that runs it."""
    if shutil.which(compiler) is None:
        raise Missing(f"{compiler} is not installed")
    out.mkdir(parents=True, exist_ok=True)
    flags = ("-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC")
    desktop = NATIVE / "desktop"
    empty = out / "empty.c"
    empty.write_text("")
    commands = [
        (*flags, "-shared", desktop / "shim.c", "-Wl,-soname,libc.so", "-o", out / "libc.so"),
        *((*flags, "-shared", empty, f"-Wl,-soname,{name}", "-o", out / name) for name in EMPTY),
        (
            *(*flags, "-isystem", headers, desktop / "golden_scores.c", NATIVE / "onnx_session.c"),
            *("-Wl,--no-as-needed", "-ldl", "-lm", "-o", out / "golden_scores"),
        ),
    ]
    for command in commands:
        subprocess.run([compiler, *map(str, command)], check=True)
    (out / "libonnxruntime.so").write_bytes(without_versions(library.read_bytes()))
    return out


def scores_of(prefix: list[str], folder: Path, detector: Path) -> tuple[str, list[float]]:
    """Returns the runtime's version and its scores of a detector's golden clips."""
    name = json.loads((detector / "detector.json").read_text())["files"][0]
    golden = json.loads((detector / f"{name}.golden.json").read_text())
    words = [detector / name, golden["input"], golden["output"], golden["samples"]]
    with (detector / f"{name}.golden.f32").open("rb") as clips:
        done = subprocess.run(
            [*prefix, str(folder / "golden_scores"), *map(str, words)],
            stdin=clips,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{folder.name}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    version, *lines = done.stdout.split()
    return version, [float.fromhex(line) for line in lines]


def check(label: str, prefix: list[str], folder: Path, detector: Path, *, same_processor: bool) -> None:
    """Compares with the golden scores and prints the outcome."""
    name = json.loads((detector / "detector.json").read_text())["files"][0]
    golden = json.loads((detector / f"{name}.golden.json").read_text())
    exact = same_processor and "-rr" in json.loads((detector / f"{name}.manifest.json").read_text())["recipe"]
    version, scores = scores_of(prefix, folder, detector)
    allowed = 0.0 if exact else golden["tolerance"]
    worst = max(abs(a - b) for a, b in zip(scores, golden["scores"], strict=True))
    said = f"{label}, ONNX Runtime {version}, {name}: golden scores within {worst:.2g} (allowed: {allowed:g})"
    if not worst <= allowed:
        sys.exit(f"FAILED: {said}")
    print(said, flush=True)


def main() -> None:
    """Runs what can be run."""
    out, detectors = Path(sys.argv[1]).resolve(), [Path(word).resolve() for word in sys.argv[2:]]
    try:
        runtime = get_tools("headers") / "onnxruntime"
        headers = runtime / "include"
        folder = build("cc", runtime / "jniLibs" / "x86_64" / "libonnxruntime.so", headers, out / "x86_64")
        for detector in detectors:
            check("x86_64", ["env", f"LD_LIBRARY_PATH={folder}"], folder, detector, same_processor=True)
    except Missing as missing:
        print(f"SKIPPED: x86_64: {missing}")
        return
    try:
        qemu = get_tools("arm") / "qemu" / "usr" / "bin" / "qemu-aarch64"
        library = runtime / "jniLibs" / "arm64-v8a" / "libonnxruntime.so"
        folder = build("aarch64-linux-gnu-gcc", library, headers, out / "arm64-v8a")
        for cpu in ARM_CPUS:
            prefix = [str(qemu), "-cpu", cpu, "-L", str(ARM_ROOT), "-E", f"LD_LIBRARY_PATH={folder}"]
            for detector in detectors:
                check(f"arm64-v8a on an emulated {cpu}", prefix, folder, detector, same_processor=False)
    except Missing as missing:
        print(f"SKIPPED: arm64-v8a: {missing}")


if __name__ == "__main__":
    main()
