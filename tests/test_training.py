"""The comparison of two ways of training: fair ones only, figures of the weights that were trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from antispoof.audio import SAMPLE_RATE
from antispoof.bootstrap import eer_difference, eer_interval, mean_eer
from antispoof.channel import band_limit
from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from benchmarks import training
from benchmarks.pages import detection_tables
from train import distill, fit

pytestmark = pytest.mark.usefixtures("threads_as_before")

SMALL = {"clip_samples": 12_000, "channels": [8] * 8}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path\tlabel\tsplit"]
    for seed in range(16):
        split, label = ("train", "train", "dev", "test")[seed // 4], ("bonafide", "spoof")[seed % 2]
        wave = speech_like(seed, 12_000)
        wave = band_limit(wave, high_hz=3_000) if label == "spoof" else wave
        soundfile.write(folder / f"{seed}.wav", wave, SAMPLE_RATE)
        lines.append(f"{seed}.wav\t{label}\t{split}")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    recipe = {
        "model": {"name": "fscnn", "overrides": SMALL},
        "data": {"crop_samples": 6_000},
        "schedule": {"steps": 3, "batch": 4, "ema": 0.5},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture(scope="module")
def runs(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By labels and taught, two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        flags = ["--config", corpus / "recipe.yaml", "--audio", corpus, "--seed", seed]
        assert fit.main([*map(str, flags), "--out", str(folder / f"labels-{seed}")]) == 0
        teacher = folder / "labels-0/final.safetensors"
        flags += ["--teacher", teacher, "--out", folder / f"taught-{seed}"]
        assert distill.main(list(map(str, flags))) == 0
    return folder


def arguments(corpus: Path, base: list[Path], other: list[Path], *more: object) -> list[str]:
    named = [("--base", path) for path in base] + [("--other", path) for path in other]
    return [str(word) for pair in named for word in pair] + ["--audio", str(corpus), *map(str, more)]


def test_figures_are_those_of_the_final_weights(
    corpus: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, other = ([runs / f"{way}-{seed}" for seed in (1, 0)] for way in ("labels", "taught"))
    out = tmp_path / "training.json"
    assert training.main(arguments(corpus, base, other, "--bootstrap", 20, "--json", out)) == 0
    document = json.loads(out.read_text())
    assert [row["split"] for row in document["rows"]] == ["dev", "test"]
    assert document["conditions"]["seeds"] == [0, 1]
    assert document["conditions"]["base"] == {"teachers": []}
    assert document["conditions"]["other"]["teachers"][0]["file"] == "final.safetensors"
    hashes = document["conditions"]["weights_sha256"]
    assert len({name for way in hashes for name in way}) == 4
    row = document["rows"][1]
    assert row["difference"]["estimate"] == pytest.approx(
        np.mean(row["other"]["eers"]) - np.mean(row["base"]["eers"])
    )
    assert "test" in capsys.readouterr().out
    table = detection_tables.training(document)
    assert "labels alone" in table
    assert "taught by 1 `final.safetensors`" in table
    with pytest.raises(UserError, match="--force"):
        training.main(arguments(corpus, base, other, "--json", out))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"recipe": {"schedule": {"steps": 4}}}, "differ in more than teachers: recipe"),
        ({"data": []}, "differ in more than teachers: data"),
        ({"teachers": [{"file": "x"}]}, "not taught as it was"),
        ({"recipe": {"distill": {"weight": 0.5}}}, "not taught as it was"),
        ({"recipe": {"schedule": {"seed": 7}}}, "the same seeds"),
    ],
)
def test_unfair_comparisons_are_refused(
    corpus: Path, runs: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    facts = json.loads((runs / "taught-1/run.json").read_text())
    for key, value in change.items():
        if key == "recipe":
            for section, words in value.items():
                facts["recipe"][section] |= words
        else:
            facts[key] = value
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "run.json").write_text(json.dumps(facts))
    (changed / "final.safetensors").write_bytes((runs / "taught-1/final.safetensors").read_bytes())
    base = [runs / "labels-0", runs / "labels-1"]
    with pytest.raises(UserError, match=says):
        training.main(arguments(corpus, base, [runs / "taught-0", changed]))


def test_what_only_teachers_judge_may_differ(runs: Path, tmp_path: Path) -> None:
    facts = json.loads((runs / "taught-1/run.json").read_text())
    excerpts = {"label": "unlabelled", "dataset": "excerpts", "licence": "CC0", "recordings": 9}
    (tmp_path / "run.json").write_text(json.dumps({**facts, "data": [*facts["data"], excerpts]}))
    (tmp_path / "final.safetensors").touch()
    with_excerpts, without = training.read_run(tmp_path), training.read_run(runs / "taught-1")
    training.check_alike([training.read_run(runs / "labels-1")], [with_excerpts])
    assert with_excerpts.teaching != without.teaching


def test_an_unfinished_run_is_refused(corpus: Path, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        training.main(arguments(corpus, [runs / "labels-0"], [tmp_path]))
    (tmp_path / "final.safetensors").touch()
    with pytest.raises(UserError, match=r"cannot read .*run\.json"):
        training.read_run(tmp_path)
    for damaged in ("{", "[]", "{}", '{"recipe": {"schedule": {"seed": 0}, "distill": {}}, "data": [1]}'):
        (tmp_path / "run.json").write_text(damaged)
        with pytest.raises(UserError, match=r"run\.json is damaged"):
            training.read_run(tmp_path)


def test_the_mean_over_one_system_is_that_system() -> None:
    random = np.random.default_rng(0)
    genuine = np.arange(60) % 3 == 0
    a, b = (random.normal(size=60) + genuine for _ in range(2))
    alone = mean_eer(a[None], genuine, draws=50)
    assert alone == eer_interval(a[genuine], a[~genuine], draws=50)
    difference = mean_eer(a[None], genuine, b[None], draws=50)
    assert difference == eer_difference(a, b, genuine, draws=50)
    # Twice the same is once; the mean of two different ones lies between.
    assert mean_eer(np.stack([a, a]), genuine, draws=50) == alone
    both = mean_eer(np.stack([a, b]), genuine, draws=50).estimate
    assert both == pytest.approx((alone.estimate + mean_eer(b[None], genuine, draws=50).estimate) / 2)
    with pytest.raises(UserError, match="not \\(systems, trials\\)"):
        mean_eer(a, genuine)
