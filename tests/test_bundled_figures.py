"""The rules that measure the bundled detectors anew: each command is one and reads what earlier ones made."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from antispoof.channel.conditions import CONDITIONS
from benchmarks.report import RESULTS
from tests.commands import commands_of, parsed, run_make

RULES = "benchmarks/bundled.mk"
ENDINGS = {
    "to_onnx": ".onnx",
    "to_tflite": ".tflite",
    "to_coreml": ".mlpackage",
    "to_onnx_cached": ".cached.json",
}
OF_TRAININGS = {"distillation-fscnn.json"}  # not of the bundled weights


def given(folder: Path) -> list[str]:
    """What a user gives: recordings and the authors' checkpoints, all there."""
    for name in ("AASIST.pth", "AASIST-L.pth", "one.safetensors", "two.safetensors"):
        (folder / name).touch()
    names = {"AASIST": "AASIST.pth", "AASIST_L": "AASIST-L.pth", "OUT": "out", "AUDIO": "audio"}
    return [f"{word}={folder / name}" for word, name in names.items()]


def product(script: str, args: argparse.Namespace) -> Path | None:
    """The file that an export or a quantization writes."""
    folder, name = script.removesuffix(".py").split("/")
    if folder == "quantize":
        return args.path.with_suffix(f".{args.recipe}{args.path.suffix}")
    return args.out / f"{args.name or args.model}{ENDINGS[name]}" if folder == "export" else None


@pytest.mark.parametrize("seeds", [False, True])
def test_every_command_reads_what_earlier_ones_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: bool
) -> None:
    words = [f"SEEDS={tmp_path}/one.safetensors {tmp_path}/two.safetensors"] if seeds else []
    made: set[Path | None] = set()
    results = set()
    for script, *flags in commands_of(run_make(RULES, "-n", *given(tmp_path), *words)):
        args = parsed(script, flags, monkeypatch)
        named = {Path(word.rpartition("=")[2]) for word in flags if word.endswith(tuple(ENDINGS.values()))}
        assert named <= made, script
        made.add(product(script, args))
        if script.startswith("benchmarks/"):
            results.add(args.json.name)
        if script == "benchmarks/seeds.py":
            assert set(args.condition) <= set(CONDITIONS)
    about_them = {path.name for path in RESULTS.glob("*-fscnn.json")} | {"parity-aasist-l.json"}
    assert results == about_them - OF_TRAININGS - (set() if seeds else {"seeds-fscnn.json"})


def test_what_is_missing_is_said() -> None:
    done = run_make(RULES, "-n", "AUDIO=a b", "AASIST=c", "AASIST_L=d", "OUT=e")
    assert done.returncode != 0
    assert "say AUDIO=DIR" in done.stderr
