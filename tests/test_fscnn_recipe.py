"""The whole way from recordings to the default detector: what each step reads is made, and all of it runs."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest
import soundfile
import torch

from antispoof.audio import SAMPLE_RATE
from antispoof.channel import band_limit
from antispoof.checkpoint import load_model, save_checkpoint
from antispoof.models import create_model
from antispoof.speechlike import speech_like
from tests.commands import REPOSITORY, commands_of, parsed, run_make
from tests.distill.mos_weights import write_weights
from train.dataset import read_rows

TARGETS = [
    *("all", "aasist-l-qat"),
    *("copies/neural-crossed/manifest.tsv", "excerpts/manifest.tsv", "taught-1/final.safetensors"),
]


GIVEN = ["AUDIO=audio", "AASIST_L=teacher.pth", "DISTILL_MOS=mos.pt"]


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs make with the rules of the recipe."""
    return run_make("train/fscnn.mk", *words)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("beside", [(), ("LYRA=graphs", "FARGAN=fargan.sh")], ids=["alone", "more copies"])
def test_every_step_is_a_command_that_reads_what_earlier_ones_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, beside: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    wanted = target if target in ("all", "aasist-l-qat") else f"{out}/{target}"
    done = make("-n", *GIVEN, f"OUT={out}", *beside, wanted)
    made: set[Path] = set()
    for script, *flags in commands_of(done):
        args = parsed(script, flags, monkeypatch)
        assert (REPOSITORY / args.config).is_file()
        reads = [Path(word) for word in flags if word.startswith(str(out)) and Path(word) != args.out]
        for path in reads:
            # Opinions of teachers are kept by whichever run asks first.
            assert path.name == "opinions" or made & {path, path.parent, *path.parents}, (script, path)
        made |= {args.out, args.out.with_suffix(".half.safetensors")}


def test_copies_of_others_are_made_where_these_are_given_and_then_learnt_from() -> None:
    words = ["-n", *GIVEN, "OUT=out", "SEEDS=0"]
    for beside in ([], ["LYRA=graphs"], ["FARGAN=fargan.sh"], ["LYRA=graphs", "FARGAN=fargan.sh"]):
        lines = make(*words, *beside).stdout.replace("\\\n", " ").splitlines()
        [last] = [line for line in lines if "fscnn-mean.yaml" in line]
        heard = {word.rpartition("/")[2] for word in last.split() if word.startswith("out/copies/")}
        given = {word.partition("=")[0].lower() for word in beside}
        assert heard & {"lyra", "lyra-crossed", "fargan"} == given | (
            {"lyra-crossed"} if "lyra" in given else set()
        )


def test_a_plan_leaves_out_what_is_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("-n", *GIVEN, f"OUT={out}", f"{out}/copies/neural/manifest.tsv")
    *vocoders, (_, *copied) = commands_of(make(*words))
    listed = Path(copied[copied.index("--out") + 1]) / "manifest.tsv"
    full = [Path(flags[flags.index("--out") + 1]) for _, *flags in vocoders]
    for age, path in enumerate([*(path.with_suffix(".half.safetensors") for path in full), *full, listed]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (age, age))
    assert "is up to date" in make(*words).stdout


@pytest.mark.parametrize("words", [(), ("AUDIO=a b", "AASIST_L=c", "DISTILL_MOS=d", "OUT=e")])
def test_what_is_missing_is_said(words: tuple[str, ...]) -> None:
    done = make("-n", *words)
    assert done.returncode != 0
    assert "say AUDIO=DIR" in done.stderr


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    lines = ["path\tlabel\tsplit\tdataset\tlicence"]
    for seed in range(16):
        split, label = ("train", "dev")[seed // 12], ("bonafide", "spoof")[seed % 2]
        place, dataset = (
            ("asvspoof/train", "free")[seed // 6 % 2],
            ("ASVspoof2019-LA-train", "page")[seed // 6 % 2],
        )
        wave = speech_like(seed, 40_000)
        wave = band_limit(wave, high_hz=3_000) if label == "spoof" else wave
        lines.append(f"{place}/{seed}.wav\t{label}\t{split}\t{dataset}\tCC0")
        (folder / place).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / place / f"{seed}.wav", wave, SAMPLE_RATE)
    for kind in ("noise", "rir"):
        (folder / "free" / kind).mkdir()
        soundfile.write(folder / "free" / kind / "1.wav", speech_like(99, 8_000), SAMPLE_RATE)
        lines.append(f"free/{kind}/1.wav\tnoise\ttrain\t{kind}\tCC0")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
def test_all_of_it_runs_and_is_not_done_twice(tmp_path: Path, corpus: Path) -> None:
    teacher, out = tmp_path / "teacher.safetensors", tmp_path / "out"
    torch.manual_seed(0)
    save_checkpoint(create_model("aasist-l"), teacher)
    rater = tmp_path / "distill_mos.pt"
    write_weights(rater)
    given = [f"AUDIO={corpus}", f"AASIST_L={teacher}", f"DISTILL_MOS={rater}", f"OUT={out}"]
    words = [*given, "STEPS=2", "VOCODER_STEPS=2", "SEEDS=0"]
    done = make("-j2", *words)
    assert done.returncode == 0, done.stderr[-2_000:]
    stages = [
        load_model(out / f"{name}-0" / "final.safetensors") for name in ("pairs", "mean", "fscnn", "qat")
    ]
    for start, model in itertools.pairwise(stages):
        assert any(
            not torch.equal(one, two) for one, two in zip(start.parameters(), model.parameters(), strict=True)
        )
    ways = {row.attack for row in read_rows(out / "copies" / "neural" / "manifest.tsv")}
    assert any("autoencoder.half" in way for way in ways)
    again = make(*words)
    assert again.returncode == 0
    assert "train/" not in again.stdout
