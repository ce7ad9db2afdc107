"""A run learns, goes on to the same weights after a stop, and tells in its card what it was."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from antispoof.checkpoint import load_model, read_checkpoint
from antispoof.errors import UserError
from tests.fit.small_recipe import RECIPE, SMALL, changed, write_recipe
from train import card, fit, session
from train.losses import cross_entropy
from train.optimiser import learning_rate
from train.recipe import LossRecipe, OptimiserRecipe
from train.states import save_state, saved_states

pytestmark = pytest.mark.usefixtures("threads_as_before")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_recipe(tmp_path, RECIPE)


def arguments(config: Path, corpus: Path, out: Path, *more: str) -> list[str]:
    return ["--config", str(config), "--audio", str(corpus), "--out", str(out), *more]


def test_the_rate_warms_up_and_falls_to_nearly_nothing() -> None:
    recipe = OptimiserRecipe(learning_rate=1.0, warmup_share=0.1)
    rates = [learning_rate(step, 100, recipe) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_class_weights_decide_which_mistake_costs() -> None:
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])  # both called spoofs
    labels = torch.tensor([0, 1])
    even = cross_entropy(logits, labels, LossRecipe())
    assert cross_entropy(logits, labels, LossRecipe(class_weights=(1.0, 9.0))) > even
    assert cross_entropy(logits, labels, LossRecipe(class_weights=(9.0, 1.0))) < even


def test_sections_for_other_commands_are_named(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_recipe(tmp_path, changed("distill", "weight", 0.5))
    assert fit.main(arguments(config, corpus, tmp_path / "out", "--steps", "1")) == 0
    said = capsys.readouterr().err
    assert "the recipe's section distill is for train/distill.py, and counts for nothing here" in said
    assert "quantize" not in said


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that nothing stopped."""
    folder = tmp_path_factory.mktemp("run")
    assert fit.main(arguments(write_recipe(folder, RECIPE), corpus, folder / "out")) == 0
    return folder / "out"


def test_a_run_leaves_what_it_promises(finished: Path) -> None:
    assert load_model(finished / "best.safetensors").clip_samples == SMALL["clip_samples"]
    rows = (finished / "metrics.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == ["step", "5", "10", "14"]
    assert [path.name for path in saved_states(finished)] == [f"state-{n:08d}.pt" for n in (6, 8, 10, 12, 14)]
    data = json.loads((finished / "run.json").read_text())["data"]
    assert sum(row["recordings"] for row in data) == 17


def test_training_learns(corpus: Path, tmp_path: Path) -> None:
    schedule = {**RECIPE["schedule"], "validate_every": 40}
    config = write_recipe(tmp_path, {**RECIPE, "augment": {"gain_db": [-6, 6]}, "schedule": schedule})
    assert fit.main(arguments(config, corpus, tmp_path / "out", "--steps", "120")) == 0
    first, _, last = np.loadtxt(tmp_path / "out/metrics.tsv", skiprows=1)
    assert last[1] < 0.5 * first[1]  # the loss
    assert last[2] == 0.0  # the dev EER of clips that differ as plainly as these


def stop_after(steps: int) -> object:
    """Returns a progress bar under which the run is interrupted before step number ``steps``."""

    def watch(numbers: Sequence[int], done: int) -> Iterator[int]:
        for number in numbers:
            if number == steps:
                raise KeyboardInterrupt
            yield number

    return watch


def test_a_stopped_run_goes_on_to_the_same_weights(
    finished: Path, corpus: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(session, "progress", stop_after(11))  # past a validation, between two states
        with pytest.raises(KeyboardInterrupt):
            fit.main(arguments(config, corpus, out))
    (out / "state-00000012.partial").write_bytes(b"cut short")
    assert fit.main(arguments(config, corpus, out, "--resume")) == 0
    assert (out / "metrics.tsv").read_bytes() == (finished / "metrics.tsv").read_bytes()
    for name in ("best.safetensors", "final.safetensors"):
        one, other = read_checkpoint(out / name), read_checkpoint(finished / name)
        assert one.metadata == other.metadata
        assert all(torch.equal(one.tensors[key], value) for key, value in other.tensors.items())


def test_a_damaged_state_is_passed_over(
    finished: Path, corpus: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    cut, empty = saved_states(out)[-2:]
    cut.write_bytes(cut.read_bytes()[:1_000])
    empty.write_bytes(b"")
    assert fit.main(arguments(config, corpus, out, "--resume")) == 0
    said = capsys.readouterr().err
    assert f"{empty} is damaged" in said
    assert f"{cut} is damaged" in said
    one, other = (read_checkpoint(path / "final.safetensors").tensors for path in (out, finished))
    assert all(torch.equal(one[key], value) for key, value in other.items())
    for path in saved_states(out):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no state to resume from that can be read"):
        fit.main(arguments(config, corpus, out, "--resume"))


def test_a_state_that_finds_no_room_is_told_of(tmp_path: Path, largest_file: Callable[[int], None]) -> None:
    save_state(tmp_path, {"step": 1})
    largest_file(100_000)
    with pytest.raises(UserError, match=r"cannot write .*state-00000002\.pt: File too large"):
        save_state(tmp_path, {"step": 2, "weights": torch.zeros(100_000)})
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000001.pt"]


def test_a_run_that_saved_no_state_yet_begins_again(
    finished: Path, corpus: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(session, "progress", stop_after(1))
        with pytest.raises(KeyboardInterrupt):
            fit.main(arguments(config, corpus, out, "--resume"))
    assert (out / "run.json").exists()
    assert not saved_states(out)
    assert fit.main(arguments(config, corpus, out, "--resume")) == 0
    for name in ("metrics.tsv", "final.safetensors"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


def test_another_recipe_cannot_resume(
    finished: Path, corpus: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "decode", lambda *_: pytest.fail("decoded"))
    for more, key in ((["--steps", "15"], "recipe.schedule.steps"), (["--threads", "2"], "threads")):
        with pytest.raises(UserError, match=f"other {key}"):
            fit.main(arguments(config, corpus, finished, "--resume", *more))


def test_other_recordings_cannot_resume(finished: Path, corpus: Path, config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(corpus, other)
    shutil.copy(other / "train-spoof-1.flac", other / "train-spoof-0.flac")
    with pytest.raises(UserError, match="other recordings"):
        fit.main(arguments(config, other, finished, "--resume"))


def test_other_lists_cannot_resume(
    finished: Path, corpus: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "decode", lambda *_: pytest.fail("decoded"))
    other = tmp_path / "other.tsv"
    lines = (corpus / "manifest.tsv").read_text().splitlines(keepends=True)
    moved = [line.replace("set-0", "set-1") if line.startswith("train-spoof-0") else line for line in lines]
    fewer = (
        [line for line in lines if not line.startswith(name)] for name in ("train-spoof-0", "dev-spoof-0")
    )
    for changed_lines in (moved, *fewer):
        assert changed_lines != lines
        other.write_text("".join(changed_lines))
        with pytest.raises(UserError, match="other lists"):
            fit.main(arguments(config, corpus, finished, "--resume", "--protocol", str(other)))


def test_recordings_of_all_kinds_that_cannot_be_used_are_told_at_once(
    corpus: Path, config: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(corpus, damaged)
    for name in ("noise/hum.flac", "dev-spoof-0.flac", "train-spoof-0.flac"):
        (damaged / name).write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^3 recordings cannot be used: .*hum.*; .*dev-spoof.*; .*train-spoof"
    ):
        fit.main(arguments(config, damaged, tmp_path / "out"))


@pytest.mark.parametrize(("has", "warned"), [({}, True), ({"avx512_bf16": True}, False)])
def test_a_processor_that_is_slow_in_bfloat16_is_told_of(
    has: dict[str, bool],
    warned: bool,
    config: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", **has})
    parser = argparse.ArgumentParser()
    session.add_flags(parser)
    for precision in ("bfloat16", "float32"):
        recipe = session.recipe_of(
            parser.parse_args(arguments(config, corpus, tmp_path, "--precision", precision))
        )
        assert recipe.schedule.precision == precision
        assert ("--precision float32" in capsys.readouterr().err) == (warned and precision == "bfloat16")


def test_runs_are_not_overwritten(finished: Path, corpus: Path, config: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a run already"):
        fit.main(arguments(config, corpus, finished))
    with pytest.raises(UserError, match="give one of them"):
        fit.main(arguments(config, corpus, finished, "--resume", "--force"))
    stateless = tmp_path / "stateless"
    stateless.mkdir()
    shutil.copy(finished / "final.safetensors", stateless)
    with pytest.raises(UserError, match="no state to resume from"):
        fit.main(arguments(config, corpus, stateless, "--resume"))


def test_the_old_run_is_dropped_when_the_new_one_begins(
    finished: Path, corpus: Path, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    files = sorted(out.iterdir())
    too_long = write_recipe(tmp_path / "out", changed("data", "crop_samples", 16_000)).rename(
        tmp_path / "long"
    )
    for recipe, more in ((too_long, []), (config, ["--protocol", "none.tsv"]), (config, ["--workers", "-1"])):
        with pytest.raises(UserError):
            fit.main(arguments(recipe, corpus, out, "--force", *more))
        assert sorted(out.iterdir()) == files
    # It may even begin with what the old one left.
    start = out / "final.safetensors"
    assert fit.main(arguments(config, corpus, out, "--force", "--steps", "1", "--start", str(start))) == 0
    assert [path.name for path in saved_states(out)] == ["state-00000001.pt"]


def test_crops_longer_than_the_clip_are_refused(corpus: Path, tmp_path: Path) -> None:
    config = write_recipe(tmp_path, changed("data", "crop_samples", 16_000))
    with pytest.raises(UserError, match="crop_samples is 16000, but a clip of aasist-l has 12000"):
        fit.main(arguments(config, corpus, tmp_path / "out"))


def test_a_run_that_is_refused_leaves_no_recordings_behind(corpus: Path, tmp_path: Path) -> None:
    config = write_recipe(tmp_path, changed("data", "pair_share", 0.5))
    out = tmp_path / "out"
    with pytest.raises(UserError, match="pair_share needs copies"):
        fit.main(arguments(config, corpus, out))
    assert list(out.iterdir()) == []


def test_batches_that_pairs_do_not_fill_are_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.tsv").write_text(
        "path\tlabel\tsplit\tsource\ncopy.flac\tspoof\ttrain\ttrain-bonafide-0.flac\n"
    )
    recipe = {**changed("data", "pair_share", 1), "schedule": {**RECIPE["schedule"], "batch": 7}}
    argv = arguments(write_recipe(tmp_path, recipe), corpus, tmp_path / "out", "--more", str(tmp_path))
    with pytest.raises(UserError, match=r"data.pair_share: 1 .* but there are 7"):
        fit.main(argv)


def test_training_goes_on_from_given_weights(finished: Path, corpus: Path, tmp_path: Path) -> None:
    model = {"name": "aasist-l", "overrides": SMALL, "initial_weights": str(finished / "final.safetensors")}
    recipe = {**changed("optimiser", "learning_rate", 1e-8), "model": model}
    out = tmp_path / "out"
    assert fit.main(arguments(write_recipe(tmp_path, recipe), corpus, out, "--steps", "1")) == 0
    given, trained = (load_model(path / "final.safetensors") for path in (finished, out))
    change = max(
        float((a - b).detach().abs().max())
        for a, b in zip(given.parameters(), trained.parameters(), strict=True)
    )
    assert change < 1e-6  # one step of 1e-8


def test_the_card_tells_what_was_trained_and_measured(finished: Path, corpus: Path, tmp_path: Path) -> None:
    out, notes = tmp_path / "made/on/the/way/small.safetensors", tmp_path / "notes.md"
    notes.write_text("Bad at everything.\n")
    argv = [str(finished), "--audio", str(corpus), "--out", str(out), "--licence", "CC0-1.0"]
    argv += ["--notes", str(notes)]
    assert card.main(argv) == 0
    text = out.with_suffix(".md").read_text()
    for expected in (
        "# aasist-l",
        "Bad at everything.",
        "CC0-1.0",
        "8 bonafide",
        "| test | as recorded | 4 | 4 |",
        card.CHOSEN,
    ):
        assert expected in text
    assert "From random weights" in text
    second = shutil.copytree(finished, tmp_path / "second")
    facts = json.loads((second / "run.json").read_text())
    facts["recipe"]["model"]["initial_weights"] = "/home/me/first/final.safetensors"
    (second / "run.json").write_text(json.dumps(facts))
    last = [str(second), *argv[1:4], str(tmp_path / "last.safetensors"), *argv[5:], "--weights", "final"]
    assert card.main(last) == 0
    text = (tmp_path / "last.md").read_text()
    assert card.CHOSEN not in text
    assert "From first/final.safetensors" in text
    assert "/home" not in text
    assert read_checkpoint(out).metadata["licence"] == "CC0-1.0"
    with pytest.raises(UserError, match="a run needs --licence"):
        card.main([*argv[:5], *argv[7:]])
    with pytest.raises(UserError, match="--force replaces it"):
        card.main(argv)
    with pytest.raises(UserError, match="cannot read"):
        card.main([str(tmp_path), *argv[1:], "--force"])


def test_weights_with_a_card_are_measured_anew(finished: Path, corpus: Path, tmp_path: Path) -> None:
    notes, first, second = (
        tmp_path / name for name in ("notes.md", "first.safetensors", "second.safetensors")
    )
    notes.write_text("## What it is\n\nA toy.\n\n## What it is bad at\n\nEverything.\n")
    words = ["--audio", str(corpus)]
    about = ["--licence", "CC0-1.0", "--notes", str(notes)]
    assert card.main([str(finished), *words, "--out", str(first), *about]) == 0
    text = first.with_suffix(".md").read_text()
    assert card.main([str(first), *words, "--out", str(second)]) == 0
    assert second.with_suffix(".md").read_text() == text
    assert second.read_bytes() == first.read_bytes()
    # Other trials, and other notes: nothing else changes.
    rows = (corpus / "manifest.tsv").read_text().splitlines(keepends=True)
    fewer = tmp_path / "fewer.tsv"
    fewer.write_text("".join(row for row in rows if not row.startswith("test-spoof-3")))
    notes.write_text("Good at nothing.\n")
    with pytest.raises(UserError, match="--force replaces it"):
        card.main([str(second), *words])
    again = [str(second), *words, "--notes", str(notes), "--protocol", str(fewer), "--force"]
    assert card.main(again) == 0
    changed = second.with_suffix(".md").read_text()
    assert "Good at nothing." in changed
    assert "A toy." not in changed
    assert "| test | as recorded | 4 | 3 |" in changed
    assert changed.partition("## Training")[2] == text.partition("## Training")[2]
    with pytest.raises(UserError, match="of a run"):
        card.main([str(second), *words, "--licence", "MIT", "--force"])
    assert card.main([str(second), *words, "--protocol", str(fewer), "--force"]) == 0
    assert second.with_suffix(".md").read_text() == changed
    second.with_suffix(".md").write_text("# A page\n")
    with pytest.raises(UserError, match="no card"):
        card.main([str(second), *words, "--force"])
