"""The matrix of artifact by channel: its conditions, its figures and its memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from antispoof.audio import MIN_SAMPLES, SAMPLE_RATE, fit_length, load_audio
from antispoof.channel import codecs
from antispoof.checkpoint import save_checkpoint
from antispoof.errors import UserError
from antispoof.models import create_model
from antispoof.speechlike import speech_like
from benchmarks import report, robustness
from benchmarks.degradations import CLEAN, DegradedClips, degradations
from benchmarks.trial_scores import find_clips
from runtimes import load

SAMPLES = SAMPLE_RATE
QUIET_SAMPLES = SAMPLE_RATE // 5
HERE = [name for name, one in degradations().items() if one.codec is None or one.codec in codecs()]
# What leaves a clip of one second at a low level as it is.
NEUTRAL = {CLEAN, "length-1s", "length-2s", "length-4s", "length-10s"}

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, six clips that end in silence, and labels that it gets right."""
    folder = tmp_path_factory.mktemp("robustness")
    for index in range(6):
        speech = speech_like(index, SAMPLES - QUIET_SAMPLES)
        soundfile.write(folder / f"{index}.wav", np.pad(speech, (0, QUIET_SAMPLES)), SAMPLE_RATE)
    torch.manual_seed(0)
    save_checkpoint(create_model("aasist-l", clip_samples=SAMPLES), folder / "one.safetensors")
    waveforms = np.stack([fit_length(load_audio(folder / f"{index}.wav"), SAMPLES) for index in range(6)])
    ranks = np.argsort(np.argsort(load(folder / "one.safetensors").score(waveforms)))
    rows = [f"{i}.wav\t{'bonafide' if rank >= 3 else 'spoof'}\tdev" for i, rank in enumerate(ranks)]
    (folder / "labels.tsv").write_text("path\tlabel\tsplit\n" + "\n".join(rows) + "\n")
    return folder


def run(place: Path, cache: Path, *flags: str) -> int:
    fixed = [str(place / "one.safetensors"), "--audio", str(place), "--protocol", str(place / "labels.tsv")]
    return robustness.main([*fixed, "--cache", str(cache), "--bootstrap", "20", *flags])


def test_a_network_may_hear_less_than_a_recording_must_have(place: Path) -> None:
    clips = find_clips(place / "labels.tsv", place, format=None, splits=())
    clean = DegradedClips(clips.trials, clips.files, degradations()[CLEAN], 7)
    head = clips.waveform(0, SAMPLES)[:, : MIN_SAMPLES // 2]
    assert np.array_equal(clips.waveform(0, MIN_SAMPLES // 2), head)
    assert np.array_equal(clean.waveform(0, MIN_SAMPLES // 2), head)


@pytest.mark.parametrize("name", HERE)
def test_every_condition_changes_what_is_heard_and_only_by_name_and_seed(name: str, place: Path) -> None:
    one = degradations()[name]
    clips = find_clips(place / "labels.tsv", place, format=None, splits=())
    clean = clips.waveform(0, SAMPLES)
    heard = DegradedClips(clips.trials, clips.files, one, 7).waveform(0, SAMPLES)
    assert heard.shape == clean.shape == (1, SAMPLES)
    assert heard.dtype == np.float32
    assert np.isfinite(heard).all()
    assert np.array_equal(heard, clean) == (name in NEUTRAL or name == "gain+0db")  # the file has 16 bits
    np.testing.assert_array_equal(
        DegradedClips(clips.trials, clips.files, one, 7).waveform(0, SAMPLES), heard
    )


def test_chance_differs_between_clips_seeds_and_conditions() -> None:
    speech, noisy = speech_like(0, SAMPLES), degradations()["snr-10db"]
    heard = noisy.apply(speech, "a.wav", 0)
    for other in (noisy.apply(speech, "b.wav", 0), noisy.apply(speech, "a.wav", 1)):
        assert not np.array_equal(heard, other)
    assert noisy.fingerprint(0) != noisy.fingerprint(1)
    assert degradations()["g711"].fingerprint(0) == degradations()["g711"].fingerprint(1)


def test_a_shift_of_all_scores_flips_decisions_without_a_change_of_eer() -> None:
    is_bonafide = np.array([True] * 4 + [False] * 4)
    clean = np.array([1.0, 2, 3, 4, -1, -2, -3, -4])
    # The threshold lies halfway between the classes; a shift by -2.5 rejects the bona fide up to 2.
    figures = robustness.compare(clean, clean - 2.5, is_bonafide, draws=10)
    assert figures["threshold"] == 0
    assert (figures["eer"]["estimate"], figures["eer_change"]["estimate"]) == (0, 0)
    assert (figures["miss"], figures["false_alarm"]) == (0.5, 0)
    assert figures["flipped"]["trials"] == 2
    assert figures["flipped"]["estimate"] == 0.25
    assert figures["mean_score_change"] == -2.5


def test_rounding_flips_no_decision() -> None:
    clean = np.random.default_rng(0).normal(np.where(np.arange(40) < 20, 1.0, -1.0), 1.0)
    for step in (-1e-9, 1e-9):
        assert robustness.compare(clean, clean + step, np.arange(40) < 20, draws=1)["flipped"]["trials"] == 0


def test_a_channel_that_turns_scores_round_is_told_as_it_is() -> None:
    is_bonafide = np.arange(40) < 20
    clean = np.where(is_bonafide, 1.0, -1.0) + np.linspace(0, 0.1, 40)
    figures = robustness.compare(clean, -clean, is_bonafide, draws=10)
    assert figures["eer"]["estimate"] == figures["eer_change"]["low"] == 1
    assert figures["flipped"]["estimate"] > 0.9
    with pytest.raises(UserError, match="inverted"):
        robustness.compare(-clean, clean, is_bonafide, draws=10)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    # Wilson's interval as tabulated, such as by Newcombe 1998 (tables I and II).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_the_interval_of_a_share(hits: int, trials: int, low: float, high: float) -> None:
    assert robustness.wilson(hits, trials) == pytest.approx((low, high), abs=6e-5)


def test_the_matrix_is_printed_written_and_rendered(
    place: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "robustness-test.json"
    flags = ["--conditions", "telephone,gain-12db", "--split", "dev", "--json", str(out)]
    assert run(place, tmp_path / "cache", *flags) == 0
    printed, logged = capsys.readouterr()
    assert [line.split()[0] for line in printed.splitlines()] == ["one", CLEAN, "telephone", "gain-12db"]
    assert "one: telephone (2 of 3)" in logged
    content = json.loads(out.read_text())
    clean, *degraded = content["rows"]
    assert (clean["condition"], clean["eer"]["estimate"], clean["flipped"]["trials"]) == (CLEAN, 0, 0)
    assert all(row["mean_score_change"] != 0 for row in degraded)
    assert content["conditions"]["trials"] == {"bonafide": 3, "spoof": 3}
    assert str(place) not in out.read_text()
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    table = report.render("<!-- results: robustness-test -->\n<!-- end -->")
    assert table.splitlines()[1].startswith("| condition | one: EER |")
    assert "| 300 to 3400 Hz |" in table
    with pytest.raises(UserError, match="--force"):
        run(place, tmp_path / "cache", *flags)


def test_a_run_goes_on_where_it_stopped(place: Path, tmp_path: Path, capsys: Capture) -> None:
    def files() -> dict[str, list[str]]:
        found = sorted(tmp_path.rglob("*.tsv"))
        return {file.parent.name: [row for row in file.read_text().split("\n") if row] for file in found}

    assert run(place, tmp_path, "--conditions", "snr-5db") == 0
    whole, printed = files(), capsys.readouterr().out
    assert [(name.split("-")[0], len(rows)) for name, rows in whole.items()] == [(CLEAN, 6), ("snr", 6)]
    noisy = next(tmp_path.glob("snr-*/*.tsv"))
    noisy.write_text("\n".join(whole[noisy.parent.name][:4]) + "\n4.wa")  # cut off in the middle of a line
    assert run(place, tmp_path, "--conditions", "snr-5db") == 0
    assert capsys.readouterr().out == printed
    assert [row for row in files()[noisy.parent.name] if "\t" in row] == whole[noisy.parent.name]
    # Another seed is another noise, but the same clean audio.
    assert run(place, tmp_path, "--conditions", "snr-5db", "--seed", "1") == 0
    assert sorted(name.split("-")[0] for name in files()) == [CLEAN, "snr", "snr"]


def test_wishes_that_cannot_be_met_are_one_sentence(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no condition is called 'underwater'; --list names them"):
        run(place, tmp_path, "--conditions", "underwater")
    with pytest.raises(UserError, match="name an ARTIFACT"):
        robustness.main(["--audio", "."])
    with pytest.raises(UserError, match="--bootstrap takes at least 1"):
        run(place, tmp_path, "--bootstrap", "0")
    for absent in set(degradations()) - set(HERE):
        with pytest.raises(UserError, match=f"cannot encode for the condition '{absent}'"):
            run(place, tmp_path, "--conditions", absent)


def test_the_conditions_are_listed(capsys: Capture) -> None:
    assert robustness.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(degradations())
