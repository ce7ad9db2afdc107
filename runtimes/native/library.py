"""Builds the streaming core with the machine's own C compiler, keeps it in the user's cache, and loads it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from antispoof.errors import UserError, one_line
from antispoof.outputs import cache_folder

SOURCES = Path(__file__).resolve().parent
# As in the Makefile: a product and a sum are rounded apart, for the same bits on every processor.
FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-fPIC", "-shared")
VERSION = 1  # SPOOF_VERSION, the interface that is declared below

INT32, INT64, DOUBLE, FLOAT = ctypes.c_int32, ctypes.c_int64, ctypes.c_double, ctypes.c_float
SIZE, POINTER = ctypes.c_size_t, ctypes.c_void_p


class CConfig(ctypes.Structure):
    """``spoof_config``."""

    _fields_ = (
        *((name, INT32) for name in ("sample_rate", "channels", "window", "hop", "first", "min_speech")),
        *((name, INT32) for name in ("gate", "lead_in", "hang_over", "pause")),
        *((name, FLOAT) for name in ("voice_margin_db", "voice_least_db")),
    )


class CRules(ctypes.Structure):
    """``spoof_rules``."""

    _fields_ = (
        *((name, DOUBLE) for name in ("scale", "offset", "time_constant", "enter", "exit")),
        ("min_duration", INT64),
    )


class CEvent(ctypes.Structure):
    """``spoof_event``."""

    _fields_ = (
        *((name, INT32) for name in ("kind", "samples")),
        *((name, INT64) for name in ("start", "end", "speech", "turn", "position")),
    )


class CJudge(ctypes.Structure):
    """``spoof_judge``."""

    _fields_ = (
        *((name, DOUBLE) for name in ("llr", "smoothed")),
        *((name, INT64) for name in ("end", "since", "turning")),
        *((name, INT32) for name in ("decision", "leaning", "changed", "scores")),
    )


@cache
def library() -> ctypes.CDLL:
    """Returns the core, compiled for this machine unless it was before.

    Raises:
        UserError: There is no C compiler, it fails, or the library cannot be loaded.
    """
    path = _built()
    try:
        core = ctypes.CDLL(str(path))
    except OSError as error:
        raise UserError(f"cannot load {path} ({one_line(error)}); delete it and try again") from error
    _declare(core)
    if core.spoof_version() != VERSION:
        raise UserError(
            f"{path} has interface {core.spoof_version()}, not {VERSION}; delete it and try again"
        )
    return core


def _declare(core: ctypes.CDLL) -> None:
    signatures: dict[str, tuple[Any, ...]] = {
        "version": (INT32,),
        "resampler_size": (SIZE, INT32),
        "resampler_init": (POINTER, POINTER, SIZE, INT32),
        "resampler_push": (INT32, POINTER, POINTER, INT32),
        "resampler_pull": (INT32, POINTER, POINTER, INT32),
        "resampler_end": (None, POINTER),
        "stream_size": (SIZE, POINTER),
        "stream_init": (POINTER, POINTER, SIZE, POINTER),
        "stream_push_pcm16": (INT32, POINTER, POINTER, INT32),
        "stream_push_float": (INT32, POINTER, POINTER, INT32),
        "stream_gap": (INT32, POINTER, INT64),
        "stream_finish": (None, POINTER),
        "stream_next": (INT32, POINTER, POINTER, POINTER),
        "stream_time": (INT64, POINTER),
        "stream_power": (DOUBLE, POINTER),
        "judge_init": (INT32, POINTER, POINTER),
        "judge_update": (INT32, POINTER, POINTER, DOUBLE, INT64),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(core, f"spoof_{name}")
        function.restype, function.argtypes = result, arguments


def _built() -> Path:
    """Returns the library of these sources, flags and compiler, in the user's cache."""
    sources = sorted(SOURCES.glob("*.c"))
    name = os.environ.get("CC", "cc")
    compiler = shutil.which(name)
    if compiler is None:
        raise UserError(
            f"streaming needs a C compiler and there is no {name!r}; install one or name it in CC"
        )
    content = hashlib.sha256(" ".join((compiler, *FLAGS)).encode())
    for source in [*sources, *sorted(SOURCES.glob("*.h"))]:
        content.update(source.read_bytes())
    target = cache_folder() / f"spoof_core-{content.hexdigest()[:16]}.so"
    if not target.is_file():
        _compile([compiler, *FLAGS, *map(str, sources)], target)
    return target


def _compile(command: list[str], target: Path) -> None:
    """Runs the compiler; the library appears whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            unfinished = Path(folder) / target.name
            done = subprocess.run([*command, "-o", unfinished], capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserError(
                    f"{command[0]} cannot compile the streaming core: {one_line(done.stderr)[:300]}"
                )
            unfinished.replace(target)
    except OSError as error:
        raise UserError(f"cannot build the streaming core in {target.parent}: {error.strerror}") from error
