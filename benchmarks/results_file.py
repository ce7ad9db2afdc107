"""Writes and reads results files, with the conditions under which their figures were measured.

Nothing that names the machine, its user or its folders is recorded: results files are published.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from antispoof.errors import UserError, one_line
from antispoof.outputs import make_folder, refuse_existing, write_whole

SCHEMA = 1
NUMBERS = re.compile(r"\[\n([\d\s.,eE+-]+)\]")  # a list of numbers alone; no text in JSON holds a new line
REPOSITORY = Path(__file__).resolve().parents[1]
# Instruction sets that decide which kernels an inference library picks.
CPU_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
PACKAGES = (
    "antispoof",
    "numpy",
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "ai-edge-litert",
    "coremltools",
)
DECODERS = ("soundfile", "soxr", "av")


def gather_conditions(threads: Sequence[int] = (1,)) -> dict[str, Any]:
    """Returns everything that could have changed a measurement, ready for JSON.

    Args:
        threads: How many threads the measured code was given, one number per setting.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "threads": list(threads),
        "load_average": load_average(),
        "memory_gib": _memory_gib(),
        "os": _operating_system(),
        "python": platform.python_version(),
        "packages": _versions(PACKAGES),
        "commit": _commit(),
    }


def surroundings() -> str:
    """Returns what a score depends on beside the file and the recording: the processor and the packages."""
    cpu = _cpu()
    return json.dumps([cpu["model"], cpu["flags"], _versions((*PACKAGES, *DECODERS))])


def load_average() -> list[float] | None:
    """Returns how many processes wanted to run over the last 1, 5 and 15 minutes; None if not counted."""
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None


def _cpu() -> dict[str, Any]:
    info = _first_cpu()
    flags = set(info.get("flags", info.get("Features", "")).split())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": info.get("model name") or _sysctl("machdep.cpu.brand_string") or platform.processor(),
        "family_model_stepping": [info.get(key) for key in ("cpu family", "model", "stepping")],
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "virtual": "hypervisor" in flags,
    }


def _first_cpu() -> dict[str, str]:
    """Returns what Linux says of its first core; nothing elsewhere."""
    first = (_read("/proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory_gib() -> float | None:
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _operating_system() -> str:
    try:
        distribution = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        distribution = platform.platform(terse=True)
    # The number only: what follows it in a release may name a private build.
    return f"{distribution}, {platform.system()} {platform.release().partition('-')[0]}"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> dict[str, Any] | None:
    """Returns the commit of this checkout and whether files differ from it; None outside a checkout."""
    head = _output("git", "-C", str(REPOSITORY), "rev-parse", "HEAD")
    if head is None:
        return None
    return {"sha": head, "dirty": bool(_output("git", "-C", str(REPOSITORY), "status", "--porcelain"))}


def _sysctl(name: str) -> str | None:
    return _output("sysctl", "-n", name) if sys.platform == "darwin" else None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def write_results(
    path: Path,
    kind: str,
    conditions: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    force: bool = False,
    **more: Any,
) -> None:
    """Writes ``{"schema", "kind", "conditions", "rows"}`` as JSON, whole or not at all.

    Args:
        path: The results file.
        kind: What was measured, such as ``latency``.
        conditions: As `gather_conditions` returns them, with whatever else the measurement depends on.
        rows: One object per thing measured.
        force: Replace a file that exists.
        **more: What a kind says beside its rows.

    Raises:
        UserError: The file exists and ``force`` is false, or it cannot be written.
        ValueError: A value is not finite, which JSON cannot hold.
    """
    refuse_existing(path, force)
    content = {"schema": SCHEMA, "kind": kind, "conditions": conditions, "rows": rows, **more}
    text = NUMBERS.sub(_on_one_line, json.dumps(content, indent=1, allow_nan=False)) + "\n"
    make_folder(path.parent)
    write_whole(path, text)


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Tells in one line that names the file what it lacks, or holds in another shape than its kind has.

    Raises:
        UserError: Something is missing.
    """
    try:
        yield
    except KeyError as error:
        raise UserError(f"{path}: damaged, or of another version: it lacks {error}") from error
    except (IndexError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{path}: damaged, or of another version ({one_line(error)})") from error


def _on_one_line(numbers: re.Match[str]) -> str:
    return f"[{' '.join(numbers[1].split())}]"


def read_results(path: Path, kind: str) -> dict[str, Any]:
    """Returns a results file's content.

    Raises:
        UserError: It cannot be read, or holds no results of this kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or content.get("kind") != kind:
        raise UserError(f"{path}: no {kind} results of schema {SCHEMA}")
    rows = content.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: its rows are not a list of objects")
    return content
