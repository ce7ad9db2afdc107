"""Decisions of the judge: those of its definition, and scores or rules that it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antispoof.errors import UserError
from antispoof.manifest import manifest_path
from antispoof.manifest_reader import parse_decisions, parse_manifest
from runtimes.native_core import Decision, Judge, Rules
from runtimes.stream import rules_of
from tests.manifests import write_manifest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def reference(rules: Rules, scores: list[tuple[float, int]]) -> list[tuple[float, Decision, int]]:
    """The judge again, in the words of its header."""
    smoothed, last, decision, since, leaning, turning = (
        0.0,
        None,
        Decision.UNDECIDED,
        0,
        Decision.UNDECIDED,
        0,
    )
    told = []
    for score, end in scores:
        llr = rules.scale * score + rules.offset
        keep = (
            math.exp(-(end - last) / rules.time_constant) if last is not None and rules.time_constant else 0
        )
        smoothed, last = keep * smoothed + (1 - keep) * llr, end
        side = decision
        if smoothed < rules.enter:
            side = Decision.SPOOF
        elif smoothed >= rules.exit:
            side = Decision.BONAFIDE
        if side != leaning:
            leaning, turning = side, end
        if side != decision and end - turning >= rules.min_duration:
            decision, since = side, end
        told.append((smoothed, decision, since))
    return told


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.tuples(st.floats(-8, 8), st.integers(1, 40_000)), min_size=1, max_size=40),
    margin=st.floats(0, 3),
    duration=st.integers(0, 50_000),
    constant=st.sampled_from((0.0, 8_000.0, 48_000.0)),
)
def test_decisions(scores: list[tuple[float, int]], margin: float, duration: int, constant: float) -> None:
    rules = Rules(0.7, 0.1, constant, -margin, margin, duration)
    ends = np.cumsum([step for _, step in scores]).tolist()
    timed = [(score, end) for (score, _), end in zip(scores, ends, strict=True)]
    judge = Judge(rules)
    for (score, end), (smoothed, decision, since) in zip(timed, reference(rules, timed), strict=True):
        verdict = judge.hear(score, end)
        assert verdict.smoothed == pytest.approx(smoothed, abs=1e-12)
        # A smoothed LLR on the threshold itself may round to either side.
        if min(abs(smoothed - rules.enter), abs(smoothed - rules.exit)) < 1e-12:
            return
        assert (verdict.decision, verdict.since) == (decision, since)


def test_decisions_need_both_thresholds_and_time() -> None:
    judge = Judge(Rules(time_constant=0, enter=-1, exit=1, min_duration=100))
    told = [
        judge.hear(s, end).decision.name for end, s in enumerate((0.5, -2, -2, 0.5, 2, -2, 2, 2), start=0)
    ]
    assert set(told) == {"UNDECIDED"}
    told = [
        judge.hear(s, 1_000 + 100 * n).decision.name for n, s in enumerate((-2, -2, 0, 2, 2, 0.5, -2, -2))
    ]
    assert told == ["UNDECIDED", "SPOOF", "SPOOF", "SPOOF", "BONAFIDE", "BONAFIDE", "BONAFIDE", "SPOOF"]


@pytest.mark.parametrize("rules", [Rules(scale=0), Rules(enter=1, exit=0), Rules(offset=math.inf)])
def test_illegal_rules_are_refused(rules: Rules) -> None:
    with pytest.raises(UserError, match="refuses"):
        Judge(rules)


def test_scores_that_cannot_be_judged_are_refused() -> None:
    judge = Judge(Rules())
    with pytest.raises(ValueError, match="cannot be judged"):
        judge.hear(1.0, -(2**63))  # the difference to the next one would not fit
    judge.hear(1.0, 100)
    for score, end in ((math.nan, 200), (math.inf, 200), (2e6, 200), (1.0, 100), (1.0, 50)):
        with pytest.raises(ValueError, match="cannot be judged"):
            judge.hear(score, end)


@pytest.mark.parametrize("row", json.loads((GOLDEN / "bounds.json").read_text()), ids=str)
def test_what_a_manifest_holds_can_be_decided_by(row: dict[str, Any], tmp_path: Path) -> None:
    """The apps' readers are held to the same rows, each in its own language's tests."""
    (tmp_path / "m.onnx").write_bytes(b"none")
    path = write_manifest(tmp_path / "m.onnx", 64_600)
    facts = json.loads(manifest_path(path).read_text())
    if row["scale"] is not None:
        facts["calibration"] = {"scale": row["scale"], "offset": row["offset"], "data": "x"}
    if row["score"] is not None:
        facts["thresholds"] = [{"name": "eer", "score": row["score"], "data": "x"}]
    if row["legal"]:
        rules = rules_of(parse_manifest(json.dumps(facts).encode(), "m"), None, 3.0)
        assert rules is not None
        Judge(rules)
        return
    with pytest.raises(UserError, match=r"beyond all bounds|scale is not positive"):
        parse_manifest(json.dumps(facts).encode(), "m")
    with pytest.raises(UserError, match=r"beyond all bounds|scale is not positive"):
        parse_decisions(json.dumps(facts), "m")  # those that come with a checkpoint
