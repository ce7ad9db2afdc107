"""Sets up, once, an emulator that runs Python on processors this machine does not have.

On Debian on x86-64, without root: nothing is installed, and only the emulated program itself is emulated.
Debian's packages and wheels are unpacked into a cache folder (150 MB to fetch, 230 MB then). apt and pip
check what they fetch; what an interrupted run has fetched is not fetched again.

An emulated program computes what the processor would, to the bit. How long that takes says nothing.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from antispoof.errors import UserError, one_line
from antispoof.outputs import cache_folder

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
QEMU_SUITE = "trixie"  # the emulator of Debian 12 crashes in ONNX Runtime and in LiteRT
ARM_SUITE, ARM_PYTHON = "bookworm", "3.11"
ARM_PACKAGES = (
    *(f"{name}{ARM_PYTHON}-minimal" for name in ("python", "libpython")),
    f"libpython{ARM_PYTHON}-stdlib",
    *(
        "libc6",
        "libgcc-s1",
        "libstdc++6",
        "zlib1g",
        "libexpat1",
        "libffi8",
        "libssl3",
        "libbz2-1.0",
        "liblzma5",
    ),
)
WHEELS = ("numpy", "onnxruntime", "ai-edge-litert")  # in the versions that are installed here
ARM_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")


class NoEmulator(UserError):
    """There is no emulator and it cannot be had here; the message says why."""


@dataclass(frozen=True)
class Processor:
    """A processor that can be emulated.

    Attributes:
        name: What it is called.
        architecture: Whose programs it runs.
        model: What the emulator calls it.
        integers: How it multiplies 8-bit integers.
    """

    name: str
    architecture: str
    model: str
    integers: str


PROCESSORS = (
    Processor("Haswell", "x86_64", "Haswell-noTSX", "two products at a time, their sum saturated to 16 bits"),
    Processor("Cortex-A53", "aarch64", "cortex-a53", "one product at a time"),
    Processor("Cortex-A76", "aarch64", "cortex-a76", "four products at a time, their sum in 32 bits"),
)


@dataclass(frozen=True)
class Emulator:
    """An emulator with what it runs, in folders that `set_up` has filled."""

    programs: Path
    arm_root: Path
    arm_site: Path

    def python(self, processor: Processor) -> list[str]:
        """Returns the command that starts Python on a processor."""
        qemu = [str(self.programs / f"qemu-{processor.architecture}"), "-cpu", processor.model]
        if processor.architecture == "x86_64":
            return [*qemu, sys.executable]
        python = self.arm_root / "usr" / "bin" / f"python{ARM_PYTHON}"
        return [*qemu, "-L", str(self.arm_root), "-E", f"PYTHONPATH={self.arm_site}", str(python)]


def set_up(folder: Path | None = None) -> Emulator:
    """Returns the emulator in a folder, after fetching what is missing there.

    Args:
        folder: By default one in the user's cache.

    Raises:
        NoEmulator: It is not there and cannot be had.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise NoEmulator("the emulator is set up on x86-64 Linux alone")
    folder = (folder or cache_folder() / "emulator").absolute()
    versions = {name: importlib.metadata.version(name) for name in WHEELS}
    site = "-".join(["arm64-site", *versions.values()])
    with _alone_in(folder):
        return Emulator(
            _filled(folder / "qemu", _fill_with_qemu) / "usr" / "bin",
            _filled(folder / "arm64-root", _fill_with_python),
            _filled(folder / site, lambda *folders: _fill_with_wheels(versions, *folders)),
        )


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _filled(target: Path, fill: Callable[[Path, Path], None]) -> Path:
    """Returns a folder, which exists only whole; ``fill`` is given one to download to and one to fill."""
    if not target.is_dir():
        print(f"fetching {target.name} for the emulator", file=sys.stderr, flush=True)
        downloads, partial = (target.with_name(f".{target.name}.{what}") for what in ("downloads", "partial"))
        shutil.rmtree(partial, ignore_errors=True)
        for made in (downloads, partial):
            made.mkdir(exist_ok=True)
        fill(downloads, partial)
        partial.rename(target)
        shutil.rmtree(downloads)
    return target


def _fill_with_qemu(downloads: Path, target: Path) -> None:
    for package in _debian_packages(downloads, QEMU_SUITE, "amd64", ("qemu-user",)):
        _run("dpkg-deb", "-x", str(package), str(target))
    for program in (target / "usr" / "bin").iterdir():
        if program.name not in {f"qemu-{processor.architecture}" for processor in PROCESSORS}:
            program.unlink()


def _fill_with_python(downloads: Path, target: Path) -> None:
    for package in _debian_packages(downloads, ARM_SUITE, "arm64", ARM_PACKAGES):
        _run("dpkg-deb", "-x", str(package), str(target))


def _fill_with_wheels(versions: dict[str, str], downloads: Path, target: Path) -> None:
    wanted = [f"{name}=={version}" for name, version in versions.items()]
    flags = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    flags += ["--python-version", ARM_PYTHON, *(f"--platform={name}" for name in ARM_PLATFORMS)]
    _run(sys.executable, "-m", "pip", "download", *flags, "--dest", str(downloads), *wanted)
    for wheel in downloads.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(target)


def _debian_packages(folder: Path, suite: str, architecture: str, names: tuple[str, ...]) -> list[Path]:
    """Returns packages of any release and architecture, fetched by an apt that knows no installed ones."""
    lists, cache, sources = (folder / name for name in ("lists", "cache", "sources.list"))
    for made in (lists / "partial", cache / "archives" / "partial"):
        made.mkdir(parents=True, exist_ok=True)
    sources.write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n", encoding="utf-8")
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": lists,
        "Dir::State::status": "/dev/null",
        "Dir::Cache": cache,
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",  # apt's own user may not be let into this folder
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    _run(*apt, "update")
    _run(*apt, "download", *names, folder=folder)
    return sorted(folder.glob("*.deb"))


def _mirror() -> str:
    """Returns the address of the Debian mirror that this machine is set up with."""
    if not KEYRING.is_file():
        raise NoEmulator("the emulator is made of Debian's packages, and this is no Debian")
    # What apt would ask for, from its configuration: it need not have asked yet.
    found = re.search(r"'(\S+)/dists/\w+/InRelease'", _run("apt-get", "update", "--print-uris"))
    if found is None:
        raise NoEmulator("apt knows no mirror of Debian on this machine")
    return found[1]


def _run(*command: str, folder: Path | None = None) -> str:
    """Runs a command and returns what it prints."""
    name = "pip" if "pip" in command else command[0]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoEmulator(f"no {name} on this machine, to set the emulator up with") from None
    if done.returncode:
        raise NoEmulator(f"{name} cannot fetch the emulator: {one_line(done.stderr)[-300:]}")
    return done.stdout
