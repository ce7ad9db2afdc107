"""The command that measures score files, and the reading and matching of scores behind it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antispoof.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from antispoof.protocols import Trial
from antispoof.score_files import ScoreFile, match_scores, read_scores
from benchmarks import accuracy, report
from benchmarks.accuracy import main

Rows = dict[str, float]
Capture = pytest.CaptureFixture[str]

COMMAND = Path(__file__).resolve().parents[1] / "benchmarks" / "accuracy.py"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twenty dev trials, 8 of them bona fide, and two test trials that share their file names."""
    rows = ["path\tlabel\tsplit\tattack"]
    rows += [f"real/r{i}.flac\tbonafide\tdev\t-" for i in range(8)]
    rows += [f"fake/f{i}.flac\tspoof\tdev\t{'A1' if i < 6 else 'A2'}" for i in range(12)]
    rows += ["other/r0.flac\tbonafide\ttest\t-", "other/f0.flac\tspoof\ttest\tA1"]
    path = tmp_path / "manifest.tsv"
    path.write_text("\n".join(rows) + "\n")
    return path


def write_scores(folder: Path, rows: Rows, llr: bool = False) -> Path:
    lines = ["path\tscore\tllr\tdecision" if llr else "path\tscore"]
    for name, s in rows.items():
        lines.append(f"{name}\t{s}\t{2 * s}\t{'bonafide' if s >= 4 else 'spoof'}" if llr else f"{name}\t{s}")
    path = folder / "scores.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def rows() -> Rows:
    """Bona fide 3 to 10; A1 -6 to -1; A2 0 to 4.5 and one at 20, so that it overlaps."""
    scores = {f"real/r{i}.flac": 3.0 + i for i in range(8)}
    scores |= {f"fake/f{i}.flac": i - 6.0 for i in range(6)}
    return scores | {f"fake/f{6 + i}.flac": s for i, s in enumerate([0.0, 1.0, 2.5, 3.5, 4.5, 20.0])}


def figures(report: Path) -> dict[str, Any]:
    return json.loads(report.read_text())


def test_a_score_file_is_measured_end_to_end(
    tmp_path: Path, manifest: Path, rows: Rows, capsys: Capture
) -> None:
    report, scores = tmp_path / "out.json", write_scores(tmp_path, rows, llr=True)
    arguments = [str(scores), "--protocol", str(manifest), "--split", "dev", "--json", str(report)]
    assert main([*arguments, "--bootstrap", "100", "--seed", "3"]) == EXIT_DONE
    found = figures(report)

    # Rejecting up to the spoof at 3.5 misses 1 of 8 and accepts 2 of 12.
    assert found["eer"] == {"value": pytest.approx((1 / 8 + 2 / 12) / 2), "threshold": 3.5}
    assert found["trials"] == {"bonafide": 8, "spoof": 12}
    assert {a["attack"]: (a["trials"], a["value"]) for a in found["attacks"]} == {
        "A1": (6, 0.0),
        "A2": (6, pytest.approx((2 / 8 + 2 / 6) / 2)),
    }
    assert 0 <= found["eer_interval"]["low"] < found["eer"]["value"] < found["eer_interval"]["high"]
    assert (found["eer_interval"]["draws"], found["eer_interval"]["seed"]) == (100, 3)
    # On the column of ratios, 2 * score: every bona fide one is above the threshold, 6 spoofs are.
    assert found["act_dcf"]["value"] == pytest.approx(6 / 12)
    assert "min_tdcf" not in found
    # From a score of 4 up: one bona fide trial lies below, two spoofs do not.
    assert found["decided"] == {"miss": pytest.approx(1 / 8), "false_alarm": pytest.approx(2 / 12)}
    assert found["inputs"]["scores"]["sha256"] == hashlib.sha256(scores.read_bytes()).hexdigest()
    assert found["inputs"]["protocol"]["sha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()

    out, err = capsys.readouterr()
    assert "20 (8 bona fide, 12 spoof)" in out
    assert "14.583333333%" in out
    assert "actDCF" in out
    assert "Cllr" in out
    assert "refused          12.500% of the bona fide trials" in out
    assert "t-DCF" not in out
    assert err == ""


def test_the_report_is_a_results_file_that_is_drawn_among_others(
    tmp_path: Path, manifest: Path, rows: Rows
) -> None:
    scores, out = write_scores(tmp_path, rows, llr=True), tmp_path / "results" / "mine.json"
    assert main([str(scores), "--protocol", str(manifest), "--split", "dev", "--json", str(out)]) == EXIT_DONE
    found = figures(out)
    assert (found["schema"], found["kind"]) == (1, "accuracy")
    assert found["conditions"]["cpu"]["cores"] >= 1
    assert [row["attack"] for row in found["rows"]] == ["all", "A1", "A2"]
    assert main([str(scores), "--protocol", str(manifest), "--split", "dev", "--bootstrap", "0"]) == EXIT_DONE
    page = tmp_path / "page.html"
    assert report.main(["--html", str(page), "--results", str(out.parent)]) == EXIT_DONE
    for said in ("14.58%", "29.17%", "scores.tsv", "8 bona fide trials and 12 spoofs", "refused", "Accuracy"):
        assert said in page.read_text()


def test_a_long_bootstrap_shows_how_far_it_is(
    tmp_path: Path, manifest: Path, rows: Rows, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "SHORT_S", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    arguments = [str(write_scores(tmp_path, rows)), "--protocol", str(manifest), "--split", "dev"]
    assert main([*arguments, "--bootstrap", "100"]) == EXIT_DONE
    assert "bootstrap" in capsys.readouterr().err


def test_ratios_are_judged_only_where_there_are_some(
    tmp_path: Path, manifest: Path, rows: Rows, capsys: Capture
) -> None:
    arguments = [str(write_scores(tmp_path, rows)), "--protocol", str(manifest), "--split", "dev"]
    assert main([*arguments, "--bootstrap", "0"]) == EXIT_DONE
    out = capsys.readouterr().out
    assert "actDCF" not in out
    assert "refused" not in out
    assert "interval" not in out
    assert main([*arguments, "--scores-are-llr"]) == EXIT_DONE
    assert "actDCF" in capsys.readouterr().out


def test_the_published_system_has_its_published_figures(shared: Path, capsys: Capture) -> None:
    oracles = shared / "oracles"
    assert (
        main(
            [
                str(oracles / "AASIST-L-retrained.2019LA.eval.scores.txt"),
                *("--asv-scores", str(oracles / "ASVspoof2019.LA.asv.eval.gi.trl.scores.txt")),
                *("--protocol", str(oracles / "ASVspoof2019.LA.cm.eval.trl.txt")),
            ]
        )
        == EXIT_DONE
    )
    out = capsys.readouterr().out
    for figure in ("71,237", "3.372631550%", "0.103981446", "1.449822051%", "(1,000 draws)"):
        assert figure in out


def test_missing_scores_stop_the_command_unless_allowed(
    tmp_path: Path, manifest: Path, rows: Rows, capsys: Capture
) -> None:
    del rows["real/r0.flac"], rows["fake/f0.flac"]
    arguments = [str(write_scores(tmp_path, rows)), "--protocol", str(manifest), "--split", "dev"]
    with pytest.raises(
        UserError, match=r"not scored: 2 trials \(real/r0.flac, fake/f0.flac\).*--allow-missing"
    ):
        main(arguments)
    assert main([*arguments, "--allow-missing"]) == EXIT_DONE
    out, err = capsys.readouterr()
    assert "18 (7 bona fide, 11 spoof)" in out
    assert "not scored: 2 trials" in err


def test_scores_outside_the_protocol_are_counted(
    tmp_path: Path, manifest: Path, rows: Rows, capsys: Capture
) -> None:
    rows |= {f"new/n{i}.flac": 0.0 for i in range(5)} | {"other/r0.flac": -50.0}
    scores = write_scores(tmp_path, rows)
    assert main([str(scores), "--protocol", str(manifest), "--split", "dev"]) == EXIT_DONE
    out, err = capsys.readouterr()
    assert "not among the trials: 6 trials (new/n0.flac, new/n1.flac, new/n2.flac, ...)" in err
    assert "14.583333333%" in out  # other/r0 did not take the place of real/r0


def test_inverted_scores_stop_the_command(tmp_path: Path, manifest: Path, rows: Rows) -> None:
    scores = write_scores(tmp_path, {name: -score for name, score in rows.items()})
    with pytest.raises(UserError, match="look inverted"):
        main([str(scores), "--protocol", str(manifest), "--split", "dev"])


def test_many_ties_are_pointed_out(tmp_path: Path, manifest: Path, rows: Rows, capsys: Capture) -> None:
    coarse = write_scores(tmp_path, {name: round(score / 3) for name, score in rows.items()})
    assert main([str(coarse), "--protocol", str(manifest), "--split", "dev"]) == EXIT_DONE
    assert "tied with the other class" in capsys.readouterr().err


def test_a_report_is_never_overwritten_unasked(tmp_path: Path, manifest: Path, rows: Rows) -> None:
    report = tmp_path / "out.json"
    report.write_text("mine")
    arguments = [str(write_scores(tmp_path, rows)), "--protocol", str(manifest), "--split", "dev"]
    with pytest.raises(UserError, match="--force"):
        main([*arguments, "--json", str(report)])
    assert report.read_text() == "mine"
    assert main([*arguments, "--json", str(report), "--force"]) == EXIT_DONE
    assert figures(report)["trials"] == {"bonafide": 8, "spoof": 12}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.tsv", "out.json", "scores.tsv"]
    assert main([*arguments, "--json", str(tmp_path / "new" / "out.json")]) == EXIT_DONE
    assert figures(tmp_path / "new" / "out.json")["trials"] == {"bonafide": 8, "spoof": 12}


@pytest.mark.parametrize(
    ("place", "hint"), [(".", "name the file to write"), ("file/out.json", "cannot write")]
)
def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    place: str, hint: str, tmp_path: Path
) -> None:
    scores = tmp_path / "scores.txt"  # does not exist, which nobody looks at
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=hint):
        main([str(scores), "--json", str(tmp_path / place), "--force"])


def test_labels_are_needed_from_somewhere(tmp_path: Path, rows: Rows) -> None:
    scores = write_scores(tmp_path, rows)
    with pytest.raises(UserError, match=r"holds no labels.*--protocol"):
        main([str(scores)])
    scores.write_text("U1 - bonafide 2\nU2 A1 spoof 1\n")
    with pytest.raises(UserError, match="--split chooses from a protocol"):
        main([str(scores), "--split", "dev"])
    assert main([str(scores)]) == EXIT_DONE


def test_the_script_runs_by_path_and_ends_with_the_promised_codes(
    tmp_path: Path, manifest: Path, rows: Rows
) -> None:
    arguments = [str(write_scores(tmp_path, rows)), "--protocol", str(manifest), "--split"]
    good = subprocess.run(
        [sys.executable, COMMAND, *arguments, "dev"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (good.returncode, good.stderr) == (EXIT_DONE, "")
    assert "EER" in good.stdout
    bad = subprocess.run(
        [sys.executable, COMMAND, *arguments, "eval"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert bad.returncode == EXIT_USER_ERROR
    assert bad.stdout == ""
    assert bad.stderr.startswith("error: ")
    assert bad.stderr.count("\n") == 1


# Score files


@pytest.mark.parametrize(
    "text",
    [
        "path\tscore\nU1\t2\nU2\t-1e-3\n",
        "filename\tcm-score\nU1\t2\nU2\t-1e-3\n",
        "score\tdecision\tpath\n2\taccept\tU1\n-1e-3\treject\tU2\n",
        "U1 - bonafide 2\nU2 A01 spoof -1e-3\n",
        "U1 2\nU2 -1e-3\n",
        "\ufeffU1 2\r\nU2 -1e-3\r\n",
    ],
)
def test_every_layout_of_scores_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scores"
    path.write_bytes(text.encode())
    scored = read_scores(path)
    assert scored.names == ["U1", "U2"]
    assert scored.scores.tolist() == [2, -1e-3]
    assert scored.llrs is None
    labelled = [Trial("U1", "bonafide"), Trial("U2", "spoof", "A01")]
    assert scored.trials == (labelled if "spoof" in text else None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no score"),
        ("path\tscore\n", "holds no score"),
        ("one two three\n", ":1: this is no score file"),
        ("U1 - bonafide 2\nU2 A1 spoof\n", ":2: 3 columns where the first line has 4"),
        ("U1 - bonafide 2\nU2 A1 fake 1\n", ":2: the key 'fake'"),
        ("U1 1\nU1 2\n", ":2: U1 is scored a second time"),
        ("path\tscore\tdecision\nU1\t1\tspoof\nU2\t2\tmaybe\n", "not about 1 trials"),
        ("U1 1\nU2 nan\n", ":2: nan is not a finite number"),
        ("U1 1\nU2 -inf\n", ":2: -inf is not a finite number"),
        ("U1 1\nU2 high\n", ":2: 'high' is not a number"),
        ("path\tscore\tllr\nU1\t1\t\n", ":2: '' is not a number"),
        ("path\tscore\n\t1\n", ":2: the trial has no name"),
    ],
)
def test_a_malformed_score_file_gets_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "scores"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        read_scores(path)


@given(
    st.one_of(st.binary(max_size=100), st.from_regex(r"([a-c] (-|A1) (spoof|bonafide) [-0-9.e]{1,4}\n){1,4}"))
)
def test_any_bytes_are_scores_or_one_sentence(content: bytes | str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            scored = read_scores(path)
        except UserError as error:
            assert str(error)  # noqa: PT017 (either outcome is right)
        else:
            assert np.isfinite(scored.scores).all()
            assert len(scored.names) == scored.scores.size > 0


def scored_names(folder: Path, *names: str) -> ScoreFile:
    return read_scores(write_scores(folder, {name: float(i) for i, name in enumerate(names)}))


@pytest.mark.parametrize(
    "names",
    [
        ["b/x.wav", "y.wav"],
        ["/data/b/x.wav", "/data/y.wav"],
        ["./b/x.wav", "y"],
        ["b\\x.wav", "c/y.flac"],
    ],
)
def test_scores_find_their_trials_by_path(names: list[str], tmp_path: Path) -> None:
    files = [
        Trial("x", "bonafide", path="a/x.wav"),
        Trial("x", "spoof", path="b/x.wav"),
        Trial("y", "spoof", path="y.wav"),
    ]
    matched = match_scores(scored_names(tmp_path, *names), files)
    assert [(t.name, s) for t, s in zip(matched.trials, matched.scores, strict=True)] == [
        ("b/x.wav", 0.0),
        ("y.wav", 1.0),
    ]
    assert (matched.unscored, matched.unlisted) == (("a/x.wav",), ())


def test_scores_find_their_trials_by_id(tmp_path: Path) -> None:
    ids = [Trial("LA_E_2", "spoof"), Trial("LA_E_1", "bonafide")]
    matched = match_scores(scored_names(tmp_path, "LA_E_1", "flac/LA_E_2.flac"), ids)
    assert matched.scores.tolist() == [1.0, 0.0]  # in the protocol's order
    assert matched.is_bonafide.tolist() == [False, True]


def test_a_name_that_could_be_two_trials_is_refused(tmp_path: Path) -> None:
    files = [Trial("x", "bonafide", path="a/x.wav"), Trial("x", "spoof", path="b/x.wav")]
    with pytest.raises(UserError, match="several files called 'x'"):
        match_scores(scored_names(tmp_path, "x.wav"), files)
    with pytest.raises(UserError, match=r"scores a/x.wav twice: as a/x.wav and as ./a/x.wav"):
        match_scores(scored_names(tmp_path, "a/x.wav", "./a/x.wav"), files)
    with pytest.raises(UserError, match=r"no name in .* the scores call a trial 'q', the protocol 'a/x.wav'"):
        match_scores(scored_names(tmp_path, "q"), files)


def test_labels_that_contradict_the_protocol_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores"
    path.write_text("U1 - bonafide 2\nU2 A01 spoof 1\n")
    with pytest.raises(UserError, match=r"label 1 trials \(U2\) differently"):
        match_scores(read_scores(path), [Trial("U1", "bonafide"), Trial("U2", "bonafide")])
