"""The pipeline of Phase 6: cleaning the list, and all of it with a tiny WavLM."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml

from antispoof.audio import SAMPLE_RATE
from antispoof.channel import band_limit
from antispoof.checkpoint import load_model, save_checkpoint
from antispoof.errors import UserError
from antispoof.models import create_model
from antispoof.speechlike import speech_like
from train import clean, phase6
from train.dataset import decode, read_rows
from train.recipe import read_recipe

REPOSITORY = Path(__file__).resolve().parents[1]
CLIP = 8_000
TINY = {"wavlm": "tiny", "clip_samples": CLIP, "channels": (8,) * 6, "layers": 1}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path\tlabel\tsplit\tspeaker"]
    for seed in range(24):
        split = "train" if seed < 12 else ("dev", "test")[seed // 2 % 2]
        label = ("bonafide", "spoof")[seed % 2]
        wave = speech_like(seed, CLIP)
        wave = band_limit(wave, high_hz=2_000) if label == "spoof" else wave
        soundfile.write(folder / f"{seed}.wav", wave, SAMPLE_RATE)
        lines.append(f"{seed}.wav\t{label}\t{split}\tspeaker {seed}")
    lines.insert(3, "hum.wav\tnoise\ttrain\t-")
    soundfile.write(folder / "hum.wav", speech_like(99, CLIP), SAMPLE_RATE)
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def phase5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phase5") / "phase5.safetensors"
    torch.manual_seed(1)
    save_checkpoint(create_model("bimamba-lora", **TINY), path)
    return path


def test_the_hardest_recordings_of_the_train_split_go(
    corpus: Path, phase5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cleaned.tsv"
    flags = ["--model", str(phase5), "--audio", str(corpus), "--out", str(out)]
    assert clean.main([*flags, "--drop", "0.25"]) == 0
    dropped = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    before = (corpus / "manifest.tsv").read_text().splitlines()
    assert [line for line in before if line.split("\t")[0] not in dropped] == out.read_text().splitlines()
    assert len(dropped) == 3
    judged = [
        row
        for row in read_rows(corpus / "manifest.tsv", corpus)
        if row.split == "train" and row.label != "noise"
    ]
    losses = clean.losses_of(load_model(phase5), judged, decode(judged, iter), iter)
    ranked = sorted(range(len(judged)), key=lambda index: -losses[index])
    assert [judged[index].path for index in ranked[:3]] == dropped
    with pytest.raises(UserError, match="--force"):
        clean.main(flags)
    with pytest.raises(UserError, match="is none"):
        clean.main([*flags, "--force", "--drop", "0.01"])
    with pytest.raises(UserError, match="--threads must be at least 1"):
        clean.main([*flags, "--force", "--threads", "0"])


def test_recordings_that_cannot_be_judged_are_told_at_once_before_any_is(
    corpus: Path, phase5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean, "losses_of", lambda *_: pytest.fail("judged before"))
    damaged = tmp_path / "damaged"
    shutil.copytree(corpus, damaged)
    for seed in (0, 11):
        (damaged / f"{seed}.wav").write_bytes(b"")
    flags = ["--model", str(phase5), "--audio", str(damaged), "--out", str(tmp_path / "cleaned.tsv")]
    with pytest.raises(UserError, match=r"^2 recordings cannot be used: .*0\.wav.*; .*11\.wav"):
        clean.main([*flags, "--drop", "0.25"])


def test_a_list_that_cannot_be_written_or_learnt_from_is_not_begun(
    corpus: Path, phase5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--model", str(phase5), "--audio", str(corpus), "--out", str(tmp_path / "new" / "cleaned.tsv")]
    with pytest.raises(UserError, match=r"no bonafide recording|no spoof recording"):
        clean.main([*flags, "--drop", "0.95"])
    assert not list((tmp_path / "new").iterdir())
    monkeypatch.setattr(clean, "losses_of", lambda *_: pytest.fail("judged before"))
    (tmp_path / "file").write_text("")
    for out, complaint in ((tmp_path, "is a folder"), (tmp_path / "file" / "cleaned.tsv", "no folder that")):
        with pytest.raises(UserError, match=complaint):
            clean.main([*flags[:-1], str(out), "--force"])


def tiny_recipe(folder: Path, **sections: dict[str, Any]) -> Path:
    """The recipe of Phase 6 for a tiny WavLM, a few steps, and crops that it can hear."""
    content: dict[str, Any] = yaml.safe_load(
        (REPOSITORY / "train/configs/bimamba-lora-phase6.yaml").read_text()
    )
    content["data"]["crop_samples"] = CLIP
    content["schedule"] = {"steps": 3, "batch": 4, "accumulate": 2, "validate_every": 3, "save_every": 2}
    for name, values in sections.items():
        content[name].update(values)
    path = folder / "phase6.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_recipe_has_what_the_phase_is_known_for() -> None:
    recipe = read_recipe(REPOSITORY / "train/configs/bimamba-lora-phase6.yaml")
    augment, loss = recipe.augment, recipe.loss
    assert (augment.codec_share, augment.codecs, augment.rawboost_share) == (0.3, ("mp3", "aac"), 0.8)
    assert (augment.mixup_alpha, loss.name, loss.alpha, loss.gamma) == (1.0, "focal", 0.9, 2.5)
    assert recipe.adversarial.epsilon == 0.5
    assert recipe.adversarial.layer in dict(create_model("bimamba-lora", **TINY).named_modules())


def test_one_command_runs_all_of_phase_6(corpus: Path, phase5: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ["--phase5", phase5, "--config", tiny_recipe(tmp_path), "--audio", corpus, "--out", out]
    argv = list(map(str, flags))
    with pytest.raises(UserError, match=r"2.0% of 12 recordings of the train split is none: say --drop"):
        phase6.main(argv)
    assert phase6.main([*argv, "--drop", "0.25", "--phase", f"Phase 4={phase5}"]) == 0
    assert len(read_rows(out / "cleaned.tsv", corpus)) == 25 - 3
    rows = [line.split("\t") for line in (out / "phases.tsv").read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == ["Phase 4"] * 4 + ["Phase 5"] * 4 + ["Phase 6"] * 4
    assert {row[1] for row in rows} == {"as recorded", *phase6.COMPRESSED}
    assert (out / "phases.png").stat().st_size > 5_000
    trained, start = load_model(out / "run/final.safetensors"), load_model(phase5)
    adapters = [name for name, _ in start.named_parameters() if "lora_B" in name]
    assert all(trained.get_parameter(name).any() for name in adapters)  # they start at nothing
    with pytest.raises(UserError, match="holds a run already"):
        phase6.main(argv)
    with pytest.raises(UserError, match="made without 3 of 12 recordings, and --drop says 6"):
        phase6.main([*argv, "--resume", "--drop", "0.5"])
    with pytest.raises(UserError, match="NAME=FILE"):
        phase6.main([*argv, "--phase", "five"])


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--split", "tset"], "no trials of both classes in the split 'tset'"),
        (["--phase", "Phase 4=none.safetensors"], "none.safetensors: no such checkpoint"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--drop", "1"], "--drop must be between 0 and 1"),
        (["--steps", "0"], "schedule.steps must be in"),
        (["--resume", "--force"], "give one of them"),
    ],
)
def test_what_would_fail_behind_the_training_fails_before_anything(
    more: list[str], complaint: str, corpus: Path, phase5: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = ["--phase5", phase5, "--config", tiny_recipe(tmp_path), "--audio", corpus, "--out", out]
    with pytest.raises(UserError, match=complaint):
        phase6.main([*map(str, flags), *more])
    assert not out.exists()


@pytest.mark.parametrize(
    ("section", "values", "complaint"),
    [
        ("schedule", {"accumulate": 3}, "multiple of schedule.accumulate"),
        ("adversarial", {"layer": "wavlm.ears"}, "no part 'wavlm.ears'"),
        ("data", {"folders": ["nowhere/"]}, "none of the recipe's data.folders"),
        ("augment", {"room_share": 0.5}, "the list has no room"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_refused_before_the_list_is_cleaned(
    section: str, values: dict[str, Any], complaint: str, corpus: Path, phase5: Path, tmp_path: Path
) -> None:
    config, out = tiny_recipe(tmp_path, **{section: values}), tmp_path / "out"
    flags = ["--phase5", phase5, "--config", config, "--audio", corpus, "--out", out, "--drop", "0.25"]
    with pytest.raises(UserError, match=complaint):
        phase6.main(list(map(str, flags)))
    assert not out.exists()
