"""Spoofs made of bona fide speech: by programs and networks, the folder that comes of it, and its pairs."""

from __future__ import annotations

import csv
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from antispoof.audio import SAMPLE_RATE, load_audio
from antispoof.channel import transcode
from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from train import neural_vocoder, vocode
from train.augment import BIT_RATES, Augmentation
from train.batches import Batches, pairs_to_draw
from train.dataset import INT16_SCALE, UNLABELLED, Row, decode, read_rows
from train.recipe import AugmentRecipe, DataRecipe
from train.resynthesis import SPOOFING
from train.vocoder_program import STEP

SAMPLES = 12_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path\tlabel\tsplit\tdataset\tattack\tlicence"]
    for index, (label, split) in enumerate(
        [("bonafide", "train"), ("bonafide", "train"), ("spoof", "train"), ("bonafide", "test")]
    ):
        soundfile.write(folder / f"{index}.flac", speech_like(index, SAMPLES), SAMPLE_RATE)
        lines.append(f"{index}.flac\t{label}\t{split}\tvoices\t{'A01' if label == 'spoof' else '-'}\tCC0")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    recipe = {"model": {"name": "fscnn"}, "schedule": {"steps": 1}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def arguments(corpus: Path, out: Path, *more: str) -> list[str]:
    return ["--audio", str(corpus), "--config", str(corpus / "recipe.yaml"), "--out", str(out), *more]


@pytest.fixture(scope="module")
def copies(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("copies")
    assert vocode.main(arguments(corpus, out, "--copies", "4", "--codec-share", "0.5")) == 0
    return out


# ---- vocoders that are programs


def program(folder: Path, body: str) -> str:
    script = folder / "vocoder.sh"
    script.write_text("#!/bin/sh\nset -e\n" + body)
    script.chmod(0o755)
    return f"late={script}"


def test_a_program_makes_copies_that_lie_over_their_originals(corpus: Path, tmp_path: Path) -> None:
    # It drops the first 50 ms and begins 37 ms late, as vocoders do.
    late = program(tmp_path, '(head -c 1184 /dev/zero; tail -c +1601 "$1") > "$2"\n')
    original = speech_like(6, SAMPLES)
    for seed in range(4):
        copy = vocode.resynthesise(original, late, np.random.default_rng(seed))
        assert copy is not None
        lags = np.correlate(copy, original, "full")
        assert abs(int(lags.argmax()) - (len(original) - 1)) <= 2 * STEP
    out = tmp_path / "out"
    arguments_ = arguments(corpus, out, "--program", late, "--neural-share", "1", "--cross-share", "0.5")
    assert vocode.main([*arguments_, "--copies", "6"]) == 0
    attacks = {row.attack for row in read_rows(out / "manifest.tsv") if row.label == "spoof"}
    assert "late" in attacks
    assert any(attack.startswith("neural ") for attack in attacks)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [("echo no model >&2; exit 3", "failed: no model"), ("true", "wrote nothing"), (None, "cannot be run")],
)
def test_a_program_that_fails_is_named(tmp_path: Path, body: str | None, complaint: str) -> None:
    way = program(tmp_path, body) if body else f"x={tmp_path / 'missing'}"
    with pytest.raises(UserError, match=complaint):
        vocode.resynthesise(speech_like(7, SAMPLES), way, np.random.default_rng(0))


# ---- the folder of copies


def test_every_copy_is_listed_with_its_source(copies: Path) -> None:
    with (copies / "manifest.tsv").open() as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    assert {line["split"] for line in lines} == {"train"}
    for line in lines:
        assert soundfile.info(copies / line["path"]).frames == SAMPLES
    spoofs = [line for line in lines if line["label"] == "spoof"]
    assert {line["attack"] for line in spoofs} <= {*SPOOFING, "A01"}
    twins = {line["path"] for line in lines if ".original." in line["path"]}
    assert twins
    assert all(line["source"] in {*twins, "0.flac", "1.flac", "2.flac"} for line in lines)
    assert len(set(map(json.dumps, lines))) == len(lines)


def test_the_level_tells_no_copy_from_its_original(corpus: Path, tmp_path: Path) -> None:
    loud = tmp_path / "loud"
    loud.mkdir()
    # As broadcasts are: nearly at full scale all the time, which no copy with other phases can be.
    wave = np.tanh(20 * speech_like(0, SAMPLES))
    soundfile.write(loud / "0.wav", 0.99 * wave / np.abs(wave).max(), SAMPLE_RATE)
    soundfile.write(loud / "1.wav", speech_like(1, SAMPLES), SAMPLE_RATE)
    (loud / "manifest.tsv").write_text("path\tlabel\tsplit\n0.wav\tbonafide\ttrain\n1.wav\tbonafide\ttrain\n")
    out, recipe = tmp_path / "out", str(corpus / "recipe.yaml")
    flags = [
        "--audio",
        str(loud),
        "--config",
        recipe,
        "--out",
        str(out),
        "--copies",
        "5",
        "--codec-share",
        "0",
    ]
    assert vocode.main(flags) == 0
    spoofs = [row for row in read_rows(out / "manifest.tsv", out) if row.label == "spoof"]
    twins = [row for row in spoofs if ".original." in row.source]
    assert twins
    assert {row.source for row in spoofs if row not in twins} >= {"1.wav"}
    for row in spoofs:
        copy = load_audio(out / row.path)
        original = load_audio((out if row in twins else loud) / row.source)
        assert copy.std() == pytest.approx(original.std(), rel=3e-3)
        assert np.abs(copy).max() <= vocode.PEAK + 1e-4
        if row in twins:
            louder = load_audio(loud / "0.wav")
            np.testing.assert_allclose(original, louder * (original.std() / louder.std()), atol=1e-3)


def test_a_stopped_run_makes_the_same_folder(corpus: Path, copies: Path, tmp_path: Path) -> None:
    flags = ("--copies", "4", "--codec-share", "0.5")
    out = tmp_path / "out"
    out.mkdir()
    notes = (copies / "journal.jsonl").read_text().splitlines(keepends=True)
    (out / "journal.jsonl").write_text("".join(notes[:4]) + notes[4][:20])  # stopped while noting the fourth
    assert vocode.main(arguments(corpus, out, *flags, "--resume")) == 0
    for name in ("manifest.tsv", "journal.jsonl"):
        assert (out / name).read_text() == (copies / name).read_text()
    made = sorted(path.name for path in out.glob("*.flac"))
    assert made
    for name in made:
        assert (out / name).read_bytes() == (copies / name).read_bytes()


def test_a_killed_run_leaves_no_process_behind(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, vocode.__file__, *arguments(corpus, out, "--copies", "500", "--workers", "2")]
    environment = {**os.environ, "PYTHONPATH": str(Path(vocode.__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as killed:
        while not list(out.glob("*.flac")):
            assert killed.poll() is None
            time.sleep(0.05)
        killed.kill()
        killed.communicate(timeout=30)  # until all that could write there have ended


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--copies", "4", "--codec-share", "0.1"], "made with other codec_share"),
        (
            ["--copies", "4", "--codec-share", "0.5", "--seed", "7", "--way", "world"],
            "made with other seed, ways",
        ),
        (["--copies", "1", "--codec-share", "0.5"], "copies that are not wanted now, such as 0.1.flac"),
    ],
)
def test_copies_of_other_settings_are_not_mixed(
    corpus: Path, copies: Path, flags: list[str], complaint: str
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in copies.iterdir()}
    with pytest.raises(UserError, match=complaint):
        vocode.main(arguments(corpus, copies, *flags, "--resume"))
    assert {path.name: path.stat().st_mtime_ns for path in copies.iterdir()} == before


def test_more_copies_may_be_made_later(corpus: Path, copies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for count in ("1", "4"):
        flags = ("--copies", count, "--codec-share", "0.5", "--resume")
        assert vocode.main(arguments(corpus, out, *flags)) == 0
    assert (out / "manifest.tsv").read_text() == (copies / "manifest.tsv").read_text()


def test_a_codec_that_is_asked_for_is_the_only_one(corpus: Path, tmp_path: Path) -> None:
    flags = ("--copies", "1", "--codec-share", "1", "--codec", "opus")
    assert vocode.main(arguments(corpus, tmp_path, *flags)) == 0
    twins = sorted(tmp_path.glob("*.original.flac"))
    assert twins
    for twin in twins:
        original = load_audio(corpus / f"{twin.name.partition('.')[0]}.flac")
        coded = [transcode(original, "opus", rate) for rate in BIT_RATES["opus"]]
        assert min(np.abs(load_audio(twin) - one).max() for one in coded) < 1 / INT16_SCALE


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--copies", "0"], "--copies must be at least 1"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--program", "x=no-such-program"], "no-such-program' cannot be run"),
        (["--codec-share", "2"], "--codec-share must be in 0 to 1"),
        (["--vocoder", "none.safetensors"], "is no vocoder"),
        (["--protocol", "none.tsv"], "none.tsv"),
    ],
)
def test_mistakes_are_named(corpus: Path, tmp_path: Path, flags: list[str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        vocode.main(arguments(corpus, tmp_path / "out", *flags))


def test_recordings_whose_copies_would_be_one_file_are_refused(corpus: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.tsv"
    listed.write_text("path\tlabel\tsplit\nvoices/a.wav\tbonafide\ttrain\nvoices/a.mp3\tspoof\ttrain\n")
    with pytest.raises(
        UserError, match=r"voices/a.wav and voices/a.mp3 would both be copied to voices__a.0.flac"
    ):
        vocode.main(arguments(corpus, tmp_path / "out", "--protocol", str(listed)))


def test_all_unreadable_recordings_are_told_at_once_and_the_others_are_copied(
    corpus: Path, tmp_path: Path
) -> None:
    lines = ["path\tlabel\tsplit"]
    for name in ("good", "torn", "empty"):
        soundfile.write(tmp_path / f"{name}.flac", speech_like(0, SAMPLES), SAMPLE_RATE)
        lines.append(f"{name}.flac\tbonafide\ttrain")
    whole = (tmp_path / "torn.flac").read_bytes()
    (tmp_path / "torn.flac").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.flac").write_bytes(b"")
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n")
    flags = ["--audio", str(tmp_path), "--config", str(corpus / "recipe.yaml"), "--copies", "2"]
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"2 recordings cannot be copied: .*torn\.flac.*; .*empty\.flac"):
        vocode.main([*flags, "--out", str(out)])
    assert not (out / "manifest.tsv").exists()
    made = {path: path.stat().st_mtime_ns for path in out.glob("good.*.flac")}
    assert made
    for name in ("torn", "empty"):
        (tmp_path / f"{name}.flac").write_bytes(whole)
    assert vocode.main([*flags, "--out", str(out), "--resume"]) == 0
    assert {row.source for row in read_rows(out / "manifest.tsv")} >= {"torn.flac", "empty.flac"}
    assert made == {path: path.stat().st_mtime_ns for path in made}


def test_a_folder_with_something_in_it_is_left_alone(corpus: Path, copies: Path) -> None:
    with pytest.raises(UserError, match="--resume goes on"):
        vocode.main(arguments(corpus, copies))


# ---- pairs in a batch


def test_pairs_are_cut_and_treated_alike(corpus: Path, tmp_path: Path) -> None:
    # Copies that are exact: then the two of a pair are equal only if everything else about them is.
    lines = ["path\tlabel\tsplit\tattack\tsource"]
    for index in (0, 1):
        (tmp_path / f"copy{index}.flac").write_bytes((corpus / f"{index}.flac").read_bytes())
        lines.append(f"copy{index}.flac\tspoof\ttrain\tnothing\t{index}.flac")
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n")
    rows = [row for row in read_rows(corpus / "manifest.tsv", corpus) if row.split == "train"]
    rows += read_rows(tmp_path / "manifest.tsv", tmp_path)
    augment = Augmentation(AugmentRecipe(gain_db=(-20, 10), hiss_share=0.5, equaliser_share=0.5), [])
    recipe = DataRecipe(crop_samples=4_000, pair_share=0.5)
    batches = Batches(rows, decode(rows, iter), recipe, augment, seed=0)
    waveforms, labels, _ = batches.batch(0, 16)
    assert labels.tolist() == [0, 1] * 8
    for spoof, bonafide in zip(waveforms[0:8:2], waveforms[1:8:2], strict=True):
        assert torch.equal(spoof, bonafide)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(waveforms[8:], 2))


def test_pairs_need_copies(corpus: Path) -> None:
    rows = read_rows(corpus / "manifest.tsv", corpus)
    with pytest.raises(UserError, match="train/vocode"):
        Batches(rows, [], DataRecipe(pair_share=0.5), Augmentation(AugmentRecipe(), []), seed=0)


@pytest.mark.parametrize(
    ("spoofs", "share", "says"),
    [
        (True, 0.0, "say data.pair_share, or leave them out"),
        (False, 0.5, "all spoofs are copies"),
        (False, 1.0, None),
        (True, 0.5, None),
    ],
)
def test_copies_that_could_not_be_drawn_are_refused(spoofs: bool, share: float, says: str | None) -> None:
    rows = [Row(f"{index}.wav", "bonafide", "train") for index in range(2)]
    rows += [Row("copy.wav", "spoof", "train", attack="world", source="0.wav")]
    rows += [Row("other.wav", "spoof", "train", attack="A01")] if spoofs else []
    clips = [np.full(4_000, 100 * index, np.int16) for index in range(len(rows))]
    recipe = DataRecipe(crop_samples=4_000, pair_share=share)
    augment = Augmentation(AugmentRecipe(), [])
    if says:
        with pytest.raises(UserError, match=says):
            Batches(rows, clips, recipe, augment, seed=0)
        return
    waveforms, labels, numbers = Batches(rows, clips, recipe, augment, seed=0).batch(0, 16)
    assert len(waveforms) == len(labels) == len(numbers) == 16
    assert 2 in numbers


def test_a_pair_stays_one_where_the_folder_is_heard_unlabelled_too() -> None:
    copies = [
        Row("a.wav", "bonafide", "train"),
        Row("b.wav", "spoof", "train", attack="world", source="a.wav"),
    ]
    unlabelled = [replace(row, label=UNLABELLED) for row in copies]
    assert pairs_to_draw([*copies, *unlabelled], DataRecipe(pair_share=1)) == {"world": [(0, 1)]}


# ---- neural vocoders


@pytest.mark.parametrize("kind", neural_vocoder.KINDS)
def test_a_vocoder_is_trained_kept_and_used(corpus: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "vocoder.safetensors"
    flags = [
        "--audio",
        str(corpus),
        "--config",
        str(corpus / "recipe.yaml"),
        "--kind",
        kind,
        "--out",
        str(out),
    ]
    # Clips of three quarters of a second are barely longer than the crops that it learns on.
    assert neural_vocoder.main([*flags, "--steps", "3"]) == 0
    assert out.with_suffix(".half.safetensors").exists()
    copy = vocode.resynthesise(speech_like(0, SAMPLES), str(out), np.random.default_rng(0))
    assert copy is not None
    assert copy.shape == (SAMPLES,)
    with pytest.raises(UserError, match="--force"):
        neural_vocoder.main(flags)


def test_a_vocoder_learns() -> None:
    clips = [np.rint(speech_like(s, 2 * SAMPLES) * 32_767).astype(np.int16) for s in range(2)]
    true = torch.from_numpy(speech_like(0, SAMPLES))[None]

    def loss(vocoder: neural_vocoder.Vocoder) -> float:
        with torch.inference_mode():
            made = vocoder(true)
        return float(neural_vocoder.spectral_loss(made, true))

    torch.manual_seed(0)
    fresh = loss(neural_vocoder.Vocoder("istft"))
    trained = neural_vocoder.train_vocoder(clips, "istft", 12, 0, lambda vocoder: None)
    assert loss(trained) < 0.8 * fresh
