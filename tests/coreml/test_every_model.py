"""Every model, target and public checkpoint scores as a Core ML package like it does in PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from antispoof.manifest_reader import read_manifest
from antispoof.models import model_names, small_config
from export import to_coreml
from tests.coreml.packages import PARITY_TOLERANCE, PUBLIC, SMALL

pytest.importorskip("coremltools")


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_every_model_exports_and_scores_like_pytorch(name: str, tmp_path: Path) -> None:
    flags = ["--model", name, "--checkpoint", "random"]
    for key, value in small_config(name).items():
        flags += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    assert to_coreml.main([*flags, "--out", str(tmp_path)]) == 0
    parity = read_manifest(tmp_path / f"{name}.mlpackage").parity
    assert parity is not None
    assert parity.max_difference <= PARITY_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_other_targets_score_the_same(target: str, tmp_path: Path) -> None:
    assert to_coreml.main([*SMALL, "--target", target, "--out", str(tmp_path)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", PUBLIC)
def test_public_weights_score_real_speech_as_in_pytorch(
    checkpoint: str, shared: Path, tmp_path: Path
) -> None:
    flags = ["--checkpoint", str(shared / "weights" / checkpoint), "--out", str(tmp_path)]
    assert to_coreml.main([*flags, "--verify-audio", str(shared / "audio" / "asvspoof" / "dev")]) == 0
    (package,) = tmp_path.glob("*.mlpackage")
    parity = read_manifest(package).parity
    assert parity is not None
    assert parity.max_difference <= PARITY_TOLERANCE
