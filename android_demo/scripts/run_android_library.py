"""Runs the runner and the app's own ONNX Runtime, made for Android, here, and checks their golden scores.

    python3 android_demo/scripts/run_android_library.py OUT DETECTOR...

Those for x86_64 run as they are, those for arm64 in an emulator; native/desktop/shim.c stands in for what
Android's C library has and this machine's has not, and this machine's linker for Android's. Each DETECTOR is
a folder of `antispoof embed android`.

The tolerance is that of the golden scores: none for a recipe that promises the same on every processor
(`-rr-f64`). Prints one line that begins with SKIPPED for what cannot be run here; exits with 1 where a score
is off.
"""

from __future__ import annotations

import json
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
NATIVE = SCRIPTS.parent / "native"
SHIM = "libc.so"
EMPTY = ("libm.so", "libdl.so", "liblog.so", "libandroid.so")  # what they have, the C library here has
LOADER = Path("/lib64/ld-linux-x86-64.so.2")
ARM_ROOT = Path("/usr/aarch64-linux-gnu")  # of Debian's cross compiler
ARM_LOADER = ARM_ROOT / "lib" / "ld-linux-aarch64.so.1"
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


def get_runner(abi: str) -> tuple[Path, Path]:
    """Returns the runner and ONNX Runtime for a processor of Android's."""
    done = subprocess.run([SCRIPTS / "get-runner.sh", abi], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(done.stdout.strip() or done.stderr.strip()[-200:])
    runner, library = done.stdout.splitlines()
    return Path(runner), Path(library)


def build(compiler: str, library: Path, out: Path) -> None:
    """Fills a folder with the library and what stands in for Android around it."""
    if shutil.which(compiler) is None:
        raise Missing(f"{compiler} is not installed")
    out.mkdir(parents=True, exist_ok=True)
    flags = ("-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
    empty = out / "empty.c"
    empty.write_text("")
    for name in (SHIM, *EMPTY):
        source = NATIVE / "desktop" / "shim.c" if name == SHIM else empty
        needed = ("-Wl,--no-as-needed", "-ldl", "-lm", f"-Wl,-soname,{name}", "-o", out / name)
        subprocess.run([compiler, *flags, *map(str, (source, *needed))], check=True)
    (out / "libonnxruntime.so").write_bytes(without_versions(library.read_bytes()))


def answer_of(command: list[str], detector: Path) -> tuple[str, list[float]]:
    """Returns the runtime's version and its scores of a detector's golden clips."""
    name = json.loads((detector / "detector.json").read_text())["files"][0]
    samples = json.loads((detector / f"{name}.golden.json").read_text())["samples"]
    words = ["--model", detector / name, "--clips", detector / f"{name}.golden.f32", "--samples", samples]
    words += ["--threads", 1, "--runs", 0]
    done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[-1]}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    answer = json.loads(done.stdout)
    return answer["library"], answer["scores"]


def check(label: str, command: list[str], detector: Path) -> None:
    """Compares with the golden scores and prints the outcome."""
    name = json.loads((detector / "detector.json").read_text())["files"][0]
    golden = json.loads((detector / f"{name}.golden.json").read_text())
    library, scores = answer_of(command, detector)
    allowed = golden["tolerance"]
    worst = max(abs(a - b) for a, b in zip(scores, golden["scores"], strict=True))
    said = f"{label}, {library}, {name}: golden scores within {worst:.2g} (allowed: {allowed:g})"
    if not worst <= allowed:
        sys.exit(f"FAILED: {said}")
    print(said, flush=True)


def main() -> None:
    """Runs what can be run."""
    out, detectors = Path(sys.argv[1]).resolve(), [Path(word).resolve() for word in sys.argv[2:]]
    try:
        if platform.machine() != "x86_64" or not LOADER.exists():
            raise Missing("this is another processor, or has another C library")
        runner, library = get_runner("x86_64")
        build("cc", library, out / "x86_64")
        command = [str(LOADER), "--library-path", str(out / "x86_64"), str(runner)]
        for detector in detectors:
            check("x86_64", command, detector)
    except Missing as missing:
        print(f"SKIPPED: x86_64: {missing}")
        return
    try:
        qemu = get_tools("arm") / "qemu" / "usr" / "bin" / "qemu-aarch64"
        runner, library = get_runner("arm64-v8a")
        build("aarch64-linux-gnu-gcc", library, out / "arm64-v8a")
        path = f"{out / 'arm64-v8a'}:{ARM_LOADER.parent}"
        for cpu in ARM_CPUS:
            command = [str(qemu), "-cpu", cpu, "-L", str(ARM_ROOT), str(ARM_LOADER), "--library-path", path]
            for detector in detectors:
                label = f"arm64-v8a on an emulated {cpu}"
                check(label, [*command, str(runner)], detector)
    except Missing as missing:
        print(f"SKIPPED: arm64-v8a: {missing}")


if __name__ == "__main__":
    main()
