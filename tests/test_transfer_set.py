"""The transfer set: how long, how loud and how changed its excerpts are, and what its list says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from antispoof.audio import SAMPLE_RATE, load_audio
from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from train import transfer_set
from train.augment import rms
from train.dataset import INT16_SCALE, UNLABELLED, Row, read_rows
from train.recipe import TransferRecipe
from train.transfer_set import SPEEDS, Excerpts

CROP = 8_000
LEVEL_DB = -19.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings of two data sets, at levels 20 dB apart, and three that must not be used."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path\tlabel\tsplit\tdataset\tlicence"]
    kinds = [
        ("bonafide", "train", "known", "CC0"),
        ("spoof", "train", "known", "CC0"),
        ("bonafide", "train", "other", "CC0"),
        ("spoof", "train", "other", "CC0"),
        ("spoof", "train", "known", "none stated"),
        ("bonafide", "test", "known", "CC0"),
        ("noise", "train", "known", "CC0"),
    ]
    for seed, fields in enumerate(kinds):
        wave = speech_like(seed, 20_000) * (0.05 if seed % 2 else 0.5)
        soundfile.write(folder / f"{seed}.flac", wave, SAMPLE_RATE)
        lines.append("\t".join((f"{seed}.flac", *fields)))
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_recipe(folder: Path, **transfer: object) -> Path:
    path = folder / "recipe.yaml"
    recipe = {
        "model": {"name": "fscnn"},
        "schedule": {"steps": 1},
        "data": {"crop_samples": CROP, "refuse_licences": ["none stated"]},
        "transfer": {"level_db": LEVEL_DB, **transfer},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


def cut(corpus: Path, folder: Path, name: str = "excerpts", *more: str, **transfer: object) -> Path:
    config = write_recipe(folder, **transfer)
    flags = ["--config", str(config), "--audio", str(corpus), "--out", str(folder / name), *more]
    assert transfer_set.main(flags) == 0
    return folder / name


def test_the_list_holds_what_was_asked_of_each_data_set(corpus: Path, tmp_path: Path) -> None:
    folder = cut(corpus, tmp_path, excerpts={"known": 5, "*": 2})
    rows = read_rows(folder / "manifest.tsv", folder)
    assert [row.source for row in rows] == ["0.flac"] * 5 + ["1.flac"] * 5 + ["2.flac"] * 2 + ["3.flac"] * 2
    assert {row.dataset for row in rows} == {"excerpts of known", "excerpts of other"}
    assert {(row.label, row.split, row.licence) for row in rows} == {(UNLABELLED, "train", "CC0")}
    assert {len(load_audio(folder / row.path)) for row in rows} == {CROP}
    listed = {"manifest.tsv", *(row.path for row in rows)}
    assert {path.name for path in folder.iterdir()} == listed


def test_a_fraction_is_a_chance(corpus: Path, tmp_path: Path) -> None:
    counts = []
    for seed in range(30):
        folder = cut(corpus, tmp_path, f"{seed}", "--seed", str(seed), excerpts={"known": 0.0, "*": 1.5})
        counts.append(len(read_rows(folder / "manifest.tsv")))
    assert {2, 3, 4} == set(counts), "two recordings, each once or twice"
    assert np.mean(counts) == pytest.approx(3, abs=0.5)


def test_the_same_seed_cuts_the_same(corpus: Path, tmp_path: Path) -> None:
    one, same = cut(corpus, tmp_path, "one"), cut(corpus, tmp_path, "same")
    other = cut(corpus, tmp_path, "other", "--seed", "1")
    for path in one.iterdir():
        assert path.read_bytes() == (same / path.name).read_bytes()
    assert any(path.read_bytes() != (other / path.name).read_bytes() for path in one.glob("*.flac"))


def test_loud_and_soft_recordings_are_heard_at_one_level(corpus: Path, tmp_path: Path) -> None:
    folder = cut(corpus, tmp_path, excerpts={"*": 8}, changed_share=0.0)
    rows = read_rows(folder / "manifest.tsv", folder)
    levels = {
        source: np.mean([rms(load_audio(folder / row.path)) for row in rows if row.source == source])
        for source in {row.source for row in rows}
    }
    assert len(levels) == 4
    for level in levels.values():  # of parts, where the level is that of the whole
        assert 20 * np.log10(level) == pytest.approx(LEVEL_DB, abs=2)


def drawn(seed: int, **transfer: float) -> np.ndarray:
    """Returns an excerpt of a tone of 500 Hz, whose only relative is one of 3 kHz."""
    times = np.arange(30_000) / SAMPLE_RATE
    clips = [(0.3 * INT16_SCALE * np.sin(2 * np.pi * hz * times)).astype(np.int16) for hz in (500, 3_000)]
    rows = [Row(f"{index}", "spoof", "train") for index in range(2)]
    excerpts = Excerpts(rows, clips, TransferRecipe(level_db=LEVEL_DB, **transfer), CROP)
    return excerpts.draw(0, [1], np.random.default_rng(seed))


def share_of_upper(excerpt: np.ndarray) -> float:
    power = np.square(np.abs(np.fft.rfft(excerpt)))
    return float(power[len(power) // 5 :].sum() / power.sum())


def peak_hz(excerpt: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(excerpt))) * SAMPLE_RATE / len(excerpt))


def test_some_excerpts_are_played_faster_or_slower() -> None:
    peaks = [peak_hz(drawn(seed, changed_share=1.0, joined_share=0.0)) for seed in range(40)]
    assert min(peaks) < 470
    assert max(peaks) > 530
    for peak in peaks:
        assert 500 * SPEEDS[0] - 3 <= peak <= 500 * SPEEDS[1] + 3
    assert {peak_hz(drawn(seed, changed_share=0.0)) for seed in range(5)} == {500.0}


def test_some_excerpts_are_two_at_once_or_one_after_the_other() -> None:
    together = after = 0
    for seed in range(40):
        first, last = np.split(drawn(seed, changed_share=1.0, joined_share=1.0), [CROP // 5])
        last = last[-CROP // 5 :]
        if share_of_upper(first) > 1e-3:
            together += 1
        else:
            after += share_of_upper(last) > 0.9
    assert together + after == 40, "the relative is heard in each"
    assert min(together, after) > 8


def test_nothing_is_overwritten_and_nothing_half_done(corpus: Path, tmp_path: Path) -> None:
    folder = cut(corpus, tmp_path)
    with pytest.raises(UserError, match="exists"):
        cut(corpus, tmp_path)
    with pytest.raises(UserError, match="asks for none"):
        cut(corpus, tmp_path, "none", excerpts={"*": 0.0})
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", folder.name}
