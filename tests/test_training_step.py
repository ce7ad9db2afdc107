"""What a step of training takes: the rows, their table, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import yaml

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError
from antispoof.speechlike import speech_like
from benchmarks import training_step
from benchmarks.pages import result_tables

pytestmark = pytest.mark.usefixtures("threads_as_before")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lines = ["path\tlabel\tsplit\tdataset"]
    for seed in range(8):
        soundfile.write(tmp_path / f"{seed}.wav", speech_like(seed, 12_000), SAMPLE_RATE)
        lines.append(f"{seed}.wav\t{('bonafide', 'spoof')[seed % 2]}\t{('train', 'dev')[seed // 4]}\tpage")
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def recipe(folder: Path, name: str, batch: int) -> str:
    path = folder / f"{name}.yaml"
    schedule = {"steps": 3_600, "batch": batch}
    parts = {"model": {"name": "fscnn"}, "schedule": schedule, "data": {"crop_samples": 8_000}}
    path.write_text(yaml.safe_dump(parts))
    return str(path)


def test_a_larger_batch_takes_longer_and_the_table_says_so(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "step.json"
    recipes = [recipe(tmp_path, "small", 2), recipe(tmp_path, "large", 64)]
    flags = ["--audio", str(corpus), "--rounds", "4", "--json", str(out)]
    assert training_step.main([*recipes, *flags]) == 0
    document = json.loads(out.read_text())
    small, large = document["rows"]
    assert (small["crops"], large["crops"], large["crop_s"], large["recordings"]) == (2, 64, 0.5, 4)
    assert large["batch_ms"] > small["batch_ms"] > 0
    assert large["step_ms"] > small["step_ms"] > 0
    share = large["batch_share"]
    assert 0 < share["low"] <= share["estimate"] <= share["high"]
    lines = result_tables.training_step(document).splitlines()
    assert lines[2].startswith("| small | float32 | 2 of 0.5 s |")
    assert "large: 64 crops of 0.5 s" in capsys.readouterr().out
    with pytest.raises(UserError, match="--force"):
        training_step.main([*recipes, *flags])


def test_no_round_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--rounds"):
        training_step.main([recipe(tmp_path, "one", 2), "--audio", str(corpus), "--rounds", "0"])
