"""Thresholds of a file's own, fitted to labelled speech by the command, and what becomes of its manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from antispoof.audio import SAMPLE_RATE
from antispoof.channel.conditions import FITTED
from antispoof.errors import UserError
from antispoof.manifest import manifest_path
from antispoof.manifest_reader import read_manifest
from antispoof.signature import signature_path
from antispoof.speechlike import speech_like
from runtimes import fit_thresholds, score
from tests.manifests import copy_model

LOUD, QUIET = 0.3, 0.06


@pytest.fixture
def model(loudness_model: Path, tmp_path: Path) -> Path:
    """A file of one's own that scores by loudness and has no thresholds."""
    return copy_model(loudness_model, tmp_path / loudness_model.name)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loud bona fide speech and quiet spoofs in dev, the other way round in test, and lists of them."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for split in ("dev", "test"):
        for index in range(4):
            for label in ("bonafide", "spoof"):
                wave = speech_like(index, SAMPLE_RATE)
                level = LOUD if (label == "bonafide") == (split == "dev") else QUIET
                name = f"{split}-{label}-{index}.wav"
                soundfile.write(folder / name, level * wave / np.abs(wave).max(), SAMPLE_RATE)
                rows.append(f"{name}\t{label}\t{split}")
    (folder / "divided.tsv").write_text("\n".join(["path\tlabel\tsplit", *rows]) + "\n")
    undivided = [row.rpartition("\t")[0] for row in rows if row.endswith("dev")]
    (folder / "undivided.tsv").write_text("\n".join(["path\tlabel", *undivided]) + "\n")
    return folder


def fit(model: Path, clips: Path, *words: str, protocol: str = "divided.tsv") -> int:
    flags = ["--protocol", str(clips / protocol), "--audio", str(clips)]
    return fit_thresholds.main([str(model), *flags, *words])


def test_a_file_gets_thresholds_and_decides(
    model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = model.read_bytes()
    assert fit(model, clips, "--as-recorded") == 0
    out, err = capsys.readouterr()
    assert "0.0%      0.0%" in out
    assert "4 spoofs cannot show it" in err
    manifest = read_manifest(model)
    assert model.read_bytes() == before
    assert [point.name for point in manifest.thresholds] == ["eer", "min-dcf"]
    assert manifest.calibration
    expected = "4 bona fide and 4 spoofed trials of divided.tsv, split dev, as recorded"
    assert {manifest.calibration.data, *(point.data for point in manifest.thresholds)} == {expected}
    table = tmp_path / "scores.tsv"
    assert score.main([str(model), str(clips), "--out", str(table)]) == 0
    decided = dict(line.split("\t")[::3] for line in table.read_text().splitlines()[1:])
    assert {name: word for name, word in decided.items() if name.startswith("dev")} == {
        name: name.split("-")[1] for name in decided if name.startswith("dev")
    }


def test_every_trial_is_heard_in_mishaps_too(model: Path, clips: Path) -> None:
    assert fit(model, clips) == 0
    everywhere = read_manifest(model)
    assert all(condition in everywhere.thresholds[0].data for condition in FITTED)
    assert fit(model, clips, "--as-recorded", "--force") == 0
    # What is 12 dB quieter is quieter than the spoofs, so that no threshold parts the classes any more.
    assert everywhere.thresholds[0].score < read_manifest(model).thresholds[0].score


def test_a_list_that_is_not_divided_is_taken_whole(model: Path, clips: Path) -> None:
    assert fit(model, clips, "--as-recorded") == 0
    divided = read_manifest(model).thresholds[0]
    assert fit(model, clips, "--as-recorded", "--force", protocol="undivided.tsv") == 0
    whole = read_manifest(model).thresholds[0]
    assert whole.score == divided.score
    assert "split" not in whole.data


def test_what_there_is_stays_unless_forced(
    model: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(model, clips) == 0
    signature_path(manifest_path(model)).write_bytes(bytes(64))
    before = manifest_path(model).read_bytes()
    with pytest.raises(UserError, match=r"has thresholds, of 4 bona fide.*--force"):
        fit(model, clips)
    assert manifest_path(model).read_bytes() == before
    capsys.readouterr()
    assert fit(model, clips, "--as-recorded", "--force") == 0
    assert "sign it again" in capsys.readouterr().err
    assert manifest_path(model).read_bytes() != before


def test_a_manifest_that_cannot_be_written_is_said_before_scoring(
    model: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antispoof.outputs.os.access", lambda *_: False)  # root may write anywhere
    monkeypatch.delattr(fit_thresholds, "fit")
    with pytest.raises(UserError, match=r"cannot write .*\.manifest\.json"):
        fit(model, clips)


def test_what_cannot_be_fitted_leaves_the_manifest_alone(model: Path, clips: Path, tmp_path: Path) -> None:
    before = manifest_path(model).read_bytes()
    spoofs = tmp_path / "spoofs.tsv"
    spoofs.write_text("path\tlabel\ndev-spoof-0.wav\tspoof\n")
    missing = tmp_path / "list.tsv"
    missing.write_text("path\tlabel\nnowhere.wav\tspoof\ndev-bonafide-0.wav\tbonafide\n")
    for words, says in (
        (["--split", "test"], "inverted"),
        (["--split", "eval"], "no trial in the split 'eval'"),
        (["--protocol", str(spoofs)], "every trial is spoof"),
        (["--protocol", str(missing)], "nowhere"),
    ):
        with pytest.raises(UserError, match=says):
            fit(model, clips, *words)
    bundled = Path(fit_thresholds.__file__).parents[1] / "antispoof/checkpoints/fscnn.safetensors"
    with pytest.raises(UserError, match="export it first"):
        fit(bundled, clips)
    assert manifest_path(model).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [missing.name, spoofs.name, model.name, manifest_path(model).name]
    )
