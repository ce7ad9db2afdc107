"""Decisions beside the scores: by the calibration or the threshold that the manifest holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from antispoof.errors import EXIT_DONE, UserError
from antispoof.manifest import Calibration, Manifest, Threshold, manifest_path
from antispoof.manifest_reader import read_manifest
from antispoof.score_files import read_scores
from runtimes.score import main
from tests.score.tables import rows_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def with_manifest(exported_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Gives a copy of the model whose manifest says more."""

    def copy(**facts: object) -> Path:
        path = Path(shutil.copy(exported_model, tmp_path / "model.onnx"))
        changed: Manifest = replace(read_manifest(exported_model), **facts)  # type: ignore[arg-type]
        changed = replace(changed, file=replace(changed.file, name=path.name)) if changed.file else changed
        manifest_path(path).write_text(changed.to_json(), encoding="utf-8")
        return path

    return copy


def test_a_calibration_adds_llr_and_a_decision_at_zero(
    with_manifest: Callable[..., Path], clips: Path, scored: str, tmp_path: Path
) -> None:
    scores = [float(row[1]) for row in rows_of(scored)[1:]]
    middle = float(np.mean(scores))
    model = with_manifest(calibration=Calibration(100.0, -100.0 * middle, "these clips"))
    out = tmp_path / "scores.tsv"
    assert main([str(model), str(clips), "--out", str(out)]) == EXIT_DONE
    header, *rows = rows_of(out.read_text(encoding="utf-8"))
    assert header == ["path", "score", "llr", "decision"]
    for score, row in zip(scores, rows, strict=True):
        assert float(row[2]) == pytest.approx(100 * (score - middle), rel=1e-8)  # nine digits
        assert row[3] == ("bonafide" if score >= middle else "spoof")
    assert len({row[3] for row in rows}) == 2
    llrs = read_scores(out).llrs
    assert llrs is not None
    assert llrs.tolist() == [float(row[2]) for row in rows]


def test_decisions_are_made_at_the_threshold_asked_for(
    with_manifest: Callable[..., Path], clips: Path, scored: str, capsys: Capture
) -> None:
    scores = [float(row[1]) for row in rows_of(scored)[1:]]
    points = (Threshold("equal", sorted(scores)[1], "dev"), Threshold("strict", 1e5, "dev"))
    model = with_manifest(thresholds=points)
    assert main([str(model), str(clips)]) == EXIT_DONE
    header, *rows = rows_of(capsys.readouterr().out)
    assert header == ["path", "score", "decision"]
    # A score equal to the threshold is bona fide.
    assert [row[2] for row in rows] == ["bonafide" if s >= points[0].score else "spoof" for s in scores]
    assert [row[2] for row in rows].count("spoof") == 1
    assert main([str(model), str(clips / "a.wav"), "--threshold", "strict"]) == EXIT_DONE
    assert capsys.readouterr().out.endswith("\tspoof\n")
    with pytest.raises(UserError, match="no threshold 'lax'; the model has equal, strict"):
        main([str(model), str(clips), "--threshold", "lax"])
