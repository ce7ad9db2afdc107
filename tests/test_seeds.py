"""The mean EER of a recipe's seeds: its rows, the detectors beside, and what is refused."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from antispoof.audio import SAMPLE_RATE
from antispoof.channel import band_limit
from antispoof.channel.conditions import CORRUPTED
from antispoof.checkpoint import load_model, save_checkpoint, weights_hash
from antispoof.errors import UserError
from antispoof.metrics import equal_error_rate
from antispoof.models import Detector, create_model
from antispoof.speechlike import speech_like
from benchmarks import seeds
from benchmarks.pages import detection_tables
from benchmarks.pages.page import markdown_tables
from benchmarks.training import labelled_trials
from train import evaluation
from train.dataset import decode, read_rows
from train.evaluation import degrade, score_ways
from train.scoring import score_clips

pytestmark = pytest.mark.usefixtures("threads_as_before")

SMALL = {"clip_samples": 12_000, "channels": (8,) * 8}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path\tlabel\tsplit\tdataset"]
    for seed in range(16):
        label, dataset = ("bonafide", "spoof")[seed % 2], ("page/one", "page/two", "other")[seed % 3]
        wave = speech_like(seed, 12_000)
        wave = band_limit(wave, high_hz=3_000) if label == "spoof" else wave
        soundfile.write(folder / f"{seed}.wav", wave, SAMPLE_RATE)
        lines.append(f"{seed}.wav\t{label}\t{('dev', 'test')[seed // 8]}\t{dataset}")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    for seed in range(2):
        save_checkpoint(_network(seed), folder / f"{seed}.safetensors")
    save_checkpoint(_network(3, channels=(4,) * 8), folder / "other.safetensors")
    return folder


def _network(seed: int, **overrides: Any) -> Detector:
    torch.manual_seed(seed)
    return create_model("fscnn", **{**SMALL, **overrides}).eval()


def _measure(corpus: Path, *words: object) -> int:
    named = [corpus / f"{seed}.safetensors" for seed in range(2)]
    return seeds.main([*map(str, words), *map(str, named), "--audio", str(corpus)])


def test_rows_are_splits_data_sets_and_conditions(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "seeds.json"
    flags = ["--dataset", "page/*", "--condition", CORRUPTED, "--bootstrap", 20, "--json", out]
    beside = ["--beside", f"wide={corpus / 'other.safetensors'}"]
    assert _measure(corpus, *flags, *beside) == 0
    document = json.loads(out.read_text())
    heard = [(row["split"], row["dataset"], row["condition"]) for row in document["rows"]]
    clean = "as recorded"
    assert heard == [
        (split, dataset, condition)
        for split in ("dev", "test")
        for dataset, condition in (("", clean), ("page/*", clean), ("", CORRUPTED))
    ]
    assert [row["bonafide"] + row["spoof"] for row in document["rows"][3:]] == [8, 5, 8]
    hashes = document["conditions"]["weights_sha256"]
    assert [len(set(hashes[name])) for name in ("fscnn", "wide")] == [2, 1]
    assert capsys.readouterr().out.count("wide") == len(heard)
    table = detection_tables.seeds(document)
    assert "fscnn, 2 seeds" in table
    assert "test, page/*" in table


def test_figures_are_those_of_the_scores(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, in_memory = tmp_path / "seeds.json", []

    def counted(clips: list[np.ndarray], condition: str, first: int) -> list[list[np.ndarray]]:
        in_memory.append(len(clips))
        return degrade(clips, condition, first)

    monkeypatch.setattr(evaluation, "degrade", counted)
    monkeypatch.setattr(evaluation, "CLIPS_DEGRADED", 4)
    flags = ["--split", "test", "--condition", CORRUPTED, "--bootstrap", 50, "--json", out]
    assert _measure(corpus, *flags) == 0
    assert in_memory == 2 * [4, 4]
    rows = [row for row in read_rows(corpus / "manifest.tsv", corpus) if row.split == "test"]
    genuine = np.array([row.label == "bonafide" for row in rows])
    model = load_model(corpus / "0.safetensors").eval()
    for row, condition in zip(json.loads(out.read_text())["rows"], ("as recorded", CORRUPTED), strict=True):
        scores = score_ways(model, degrade(decode(rows, iter), condition))
        eer = equal_error_rate(scores[genuine].ravel(), scores[~genuine].ravel(), allow_inverted=True).value
        assert row["detectors"]["fscnn"]["eers"][0] == eer


def test_figures_of_earlier_results_are_taken_over(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, degraded, both = (tmp_path / f"{name}.json" for name in ("clean", "degraded", "both"))
    wide, few = ["--beside", f"wide={corpus / 'other.safetensors'}"], ["--bootstrap", 20]
    assert _measure(corpus, *wide, *few, "--dataset", "page/*", "--json", clean) == 0
    assert _measure(corpus, *wide, *few, "--condition", CORRUPTED, "--json", degraded) == 0
    heard: list[str] = []

    def noted(model: Detector, clips: list[np.ndarray]) -> np.ndarray:
        heard.append(weights_hash(model))
        return score_clips(model, clips)

    monkeypatch.setattr(seeds, "score_clips", noted)
    words = ["--dataset", "page/*", "--condition", CORRUPTED, "--known", clean, "--known", degraded]
    args = [corpus / "1.safetensors", *wide, *few, *words, "--audio", corpus, "--json", both]
    assert seeds.main([*map(str, args)]) == 0
    assert set(heard) == {weights_hash(load_model(corpus / "1.safetensors"))}
    found, *known = (json.loads(path.read_text()) for path in (both, clean, degraded))
    for row in found["rows"]:
        [same, *_] = [
            one for old in known for one in old["rows"] if seeds.trials_of(one) == seeds.trials_of(row)
        ]
        when = {"measured": row["detectors"]["wide"]["measured"]}
        assert row["detectors"]["wide"] == same["detectors"]["wide"] | when
        assert when["measured"]["date"] in {old["conditions"]["date"] for old in known}
        assert "measured" not in row["detectors"]["fscnn"]
    found["conditions"]["cpu"]["model"] = "another"
    assert ". wide: " in detection_tables.seeds(found)

    # As many recordings of a list of the same name, one of them another.
    altered = shutil.copytree(corpus, tmp_path / "altered")
    soundfile.write(altered / "9.wav", speech_like(99, 12_000), SAMPLE_RATE)
    args[args.index(corpus)], args[-1] = altered, tmp_path / "altered.json"
    assert seeds.main([*map(str, args)]) == 0
    rows = json.loads((tmp_path / "altered.json").read_text())["rows"]
    assert {row["split"] for row in rows if "measured" in row["detectors"]["wide"]} == {"dev"}


def test_results_of_another_kind_are_no_earlier_ones(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"schema": 1, "kind": "latency", "conditions": {}, "rows": []}')
    with pytest.raises(UserError, match=r"other\.json"):
        _measure(corpus, "--known", other)


def test_trials_lie_on_disk(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows, _, clips = labelled_trials(read_rows(corpus / "manifest.tsv", corpus), "dev")
    assert all(isinstance(clip.base, np.memmap) for clip in clips)
    assert all(np.array_equal(*both) for both in zip(clips, decode(rows, iter), strict=True))
    assert not list(tmp_path.iterdir())


def test_a_data_set_of_one_class_is_refused_before_anything_is_heard(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "score_clips", lambda *_: pytest.fail("heard"))
    lines = (corpus / "manifest.tsv").read_text().splitlines(keepends=True)
    protocol = tmp_path / "list.tsv"
    protocol.write_text("".join(lines[:-1]) + lines[-1].replace("page/one", "lone"))
    with pytest.raises(UserError, match="'lone' have no trials of both classes in one split"):
        _measure(corpus, "--dataset", "lone", "--protocol", protocol)


def test_decisions_are_those_of_each_checkpoints_own_threshold(corpus: Path, tmp_path: Path) -> None:
    out, facts = tmp_path / "seeds.json", {"calibration": {"scale": 1.0, "offset": 0.0, "data": "x"}}
    for seed, score in enumerate((-100.0, 100.0)):
        points = [{"name": "eer", "score": score, "data": "x"}, {"name": "far-1%", "score": 0.0, "data": "x"}]
        model = load_model(corpus / f"{seed}.safetensors")
        decisions = json.dumps({**facts, "thresholds": points})
        save_checkpoint(model, tmp_path / f"{seed}.safetensors", decisions=decisions)
    named = [str(tmp_path / f"{seed}.safetensors") for seed in range(2)]
    words = ["--beside", f"wide={corpus / 'other.safetensors'}", "--audio", str(corpus), "--split", "test"]
    assert seeds.main([*named, *words, "--bootstrap", "20", "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    [row] = document["rows"]
    assert row["detectors"]["fscnn"]["decided"] == [
        {"threshold": {"name": "eer", "score": -100, "data": "x"}, "miss": 0, "false_alarm": 1},
        {"threshold": {"name": "eer", "score": 100, "data": "x"}, "miss": 1, "false_alarm": 0},
    ]
    assert row["detectors"]["wide"]["decided"] == []  # its checkpoint knows no threshold
    table = detection_tables.seeds(document)
    assert "| test, as recorded | 0.0% / 100.0%; 100.0% / 0.0% |" in table
    assert "wide at" not in table
    html = markdown_tables(table)
    assert html.count("<table>") == 2
    assert html.count("<p>Bona fide clips refused") == 1
    assert "</table><p>EER with its 95 % interval. " in html


def test_kept_scores_are_not_computed_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    flags = ["--split", "test", "--condition", CORRUPTED, "--bootstrap", 20, "--cache", kept]
    assert _measure(corpus, *flags, "--json", tmp_path / "first.json") == 0
    asked: list[Detector] = []

    def count(model: Detector, clips: list[np.ndarray]) -> np.ndarray:
        asked.append(model)
        return score_clips(model, clips)

    monkeypatch.setattr(seeds, "score_clips", count)
    assert _measure(corpus, *flags, "--json", tmp_path / "again.json") == 0
    assert not asked
    first, again = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("first", "again"))
    assert first["rows"] == again["rows"]
    # Another detector and other clips are heard: eight clips, four at a time.
    assert _measure(corpus, *flags, "--beside", f"wide={corpus / 'other.safetensors'}") == 0
    assert len(asked) == 2 * (1 + 6)
    assert _measure(corpus, "--split", "dev", "--bootstrap", 20, "--cache", kept) == 0
    assert len(asked) == 2 * (1 + 6 + 2)


def test_corrupted_speech_met_every_mishap() -> None:
    clip = np.rint(speech_like(0, 16_000) * 8_000).astype(np.int16)
    ways = [made for [made, _] in degrade([clip, clip], CORRUPTED)]
    levels = [round(20 * np.log10(np.std(one) / np.std(clip))) for one in ways]
    assert levels[-1] == -12
    assert levels[-2] in range(8, 13)  # clipped
    assert min(levels[:-2]) >= -3  # what a channel swallows
    high = [np.abs(np.fft.rfft(one))[4_000:].sum() / np.abs(np.fft.rfft(clip))[4_000:].sum() for one in ways]
    assert high[1] < 0.1  # band-limited
    assert len({one.tobytes() for one in ways}) == 6
    [noisy, otherwise] = degrade([clip, clip], CORRUPTED)[0]
    assert np.any(noisy != otherwise)  # the noise of another clip is another


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--condition", "underwater"], "no condition"),
        (["--beside", "x"], "say NAME=FILE"),
        (["--beside", "fscnn=0.safetensors"], "called 'fscnn'"),
        (["--split", "train"], "no trials of both classes"),
        (["--split", "dev", "--split", "eval"], "in the split 'eval'"),
        (["--dataset", "nowhere*"], "no data set of the list is called"),
        (["other.safetensors"], "not of one network"),
    ],
)
def test_what_makes_no_sense_is_refused(corpus: Path, flags: list[str], says: str) -> None:
    named = [str(corpus / word) if word.endswith("s") and "=" not in word else word for word in flags]
    named = [word.replace("=", f"={corpus}/") for word in named]
    with pytest.raises(UserError, match=says):
        _measure(corpus, *named)
