"""The page opens a signed detector, and says in a sentence why it opens no changed one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from antispoof.manifest import manifest_path
from antispoof.manifest_reader import read_manifest
from tests.web.page import node


def outcomes(folder: Path, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return json.loads(node("verify.mjs", folder, stdin=json.dumps(changes)))


def size(folder: Path, name: str) -> int:
    return (folder / name).stat().st_size


def positions(folder: Path, every: dict[str, int]) -> list[dict[str, Any]]:
    """Returns a flipped bit at every so-manieth byte of files, their ends among them."""
    changes = []
    for name, step in every.items():
        last = size(folder, name) - 1
        for at in sorted({*range(0, last + 1, step), last}):
            changes.append({"file": name, "at": at, "flip": 1 << (at % 8)})
    return changes


def assert_refused(changes: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
    for change, result in zip(changes, results, strict=True):
        assert "problem" in result, (change, result)
        assert result["isSentence"], (change, result)
        assert re.fullmatch(r"[^\n]{20,300}\.", result["problem"]), result


def signature(key: Path, manifest: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(key.read_bytes(), None)
    return private.sign(b"antispoof manifest 1\n" + manifest)  # type: ignore[union-attr, call-arg]


def test_a_signed_detector_is_accepted(vendor: Path, detector: Path) -> None:
    (result,) = outcomes(detector, [{}])
    manifest = read_manifest(detector / "fscnn.onnx")
    assert manifest.file is not None
    assert result == {"name": "fscnn.onnx", "version": 1, "sha256": manifest.file.sha256}


def test_a_changed_byte_ends_in_a_sentence(vendor: Path, detector: Path) -> None:
    name = "fscnn.onnx"
    changes = positions(
        detector,
        {
            f"{name}.manifest.json": 97,
            f"{name}.manifest.json.sig": 9,
            "trusted-key.pub": 7,
            name: 50_000,
            f"{name}.golden.json": 31,
            f"{name}.golden.f32": 250_000,
        },
    )
    files = (*sorted({change["file"] for change in changes}), "detector.json")
    changes += [{"file": file, "missing": True} for file in files]
    changes += [{"file": file, "cut": cut} for file in files for cut in (0, size(detector, file) // 2)]
    changes += [{"accepted": {"fscnn": 2}}, {"suffixes": [".mlpackage"]}]
    assert_refused(changes, outcomes(detector, changes))


@pytest.mark.slow
def test_every_byte_ends_in_a_sentence(vendor: Path, detector: Path) -> None:
    name = "fscnn.onnx"
    files = (f"{name}.manifest.json", f"{name}.manifest.json.sig", "trusted-key.pub", f"{name}.golden.json")
    changes = positions(detector, dict.fromkeys(files, 1)) + positions(detector, {name: 997})
    assert_refused(changes, outcomes(detector, changes))


def test_a_changed_list_opens_nothing_else(vendor: Path, detector: Path) -> None:
    changes = [
        {"file": "detector.json", "at": at, "flip": 1 << bit}
        for at in range(size(detector, "detector.json"))
        for bit in range(8)
    ]
    (signed,) = outcomes(detector, [{}])
    results = outcomes(detector, changes)
    assert all(result == signed or result.get("isSentence") for result in results)
    assert any(result != signed for result in results)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"schema": 2}, "another schema"),
        ({"input.samples": 960_001}, "input.samples"),
        ({"input.samples": 64_600.5}, "input.samples"),
        ({"input.sample_rate": 8_000}, "input.sample_rate"),
        ({"output.polarity": "higher is spoof"}, "output.polarity"),
        ({"calibration.scale": -1}, "turn its scores round"),
        ({"calibration.scale": "1"}, "calibration.scale"),
        ({"calibration.scale": 1e6}, "beyond all bounds"),
        ({"thresholds": {}}, "thresholds"),
        ({"model_version": -1}, "model_version"),
        ({"model_version": True}, "model_version"),
        ({"file.name": "other.onnx"}, "other.onnx"),
    ],
)
def test_a_signed_manifest_that_says_what_cannot_be(
    vendor: Path, detector: Path, key: Path, tmp_path: Path, facts: dict[str, Any], words: str
) -> None:
    folder = tmp_path / "detector"
    shutil.copytree(detector, folder)
    path = manifest_path(folder / "fscnn.onnx")
    manifest = json.loads(path.read_text())
    for name, value in facts.items():
        *parents, last = name.split(".")
        place = manifest
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(manifest))
    path.with_name(path.name + ".sig").write_bytes(signature(key, path.read_bytes()))
    (result,) = outcomes(folder, [{}])
    assert result["isSentence"]
    assert words in result["problem"]
