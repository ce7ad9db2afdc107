"""Training in several processes, and training that is killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torch import Tensor, distributed, nn

from antispoof.audio import SAMPLE_RATE
from antispoof.checkpoint import save_checkpoint
from antispoof.errors import UserError
from antispoof.models import create_model, model_names, small_config
from antispoof.models.layers.graph import NodeBatchNorm
from antispoof.speechlike import speech_like
from train import fit, qat
from train.augment import Augmentation
from train.batches import Batches
from train.dataset import Row
from train.loop import Run
from train.ranks import Ranks, SharedBatchNorm, share_norms
from train.recipe import read_recipe
from train.states import saved_states

REPOSITORY = Path(__file__).resolve().parents[1]
CLIP = 12_000
RECIPE: dict[str, Any] = {
    "model": {"name": "fscnn", "overrides": {"clip_samples": CLIP, "channels": [8] * 8}, "dropout": 0.0},
    "data": {"crop_samples": 6_000},
    "augment": {"gain_db": [-6, 6], "mixup_alpha": 1.0},
    "optimiser": {"learning_rate": 0.003},
    "schedule": {"steps": 12, "batch": 8, "ema": 0.9, "validate_every": 3, "save_every": 4},
}
# Sums in another order, and 12 steps of Adam, which turns small differences of small gradients into steps.
SAME_CURVE = 2e-3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["path\tlabel\tsplit"]
    for seed in range(12):
        split, label = "train" if seed < 8 else "dev", ("bonafide", "spoof")[seed % 2]
        soundfile.write(folder / f"{seed}.wav", speech_like(seed, 9_000 + 300 * seed), SAMPLE_RATE)
        lines.append(f"{seed}.wav\t{label}\t{split}")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder


@dataclass(frozen=True)
class TwoRanks(Ranks):
    """The first of two processes, of which the other is not there."""

    count: int = 2

    def wait(self) -> None:
        pass


def write_recipe(folder: Path, **schedule: int) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "schedule": {**RECIPE["schedule"], **schedule}}))
    return path


def flags(config: Path, corpus: Path, out: Path, *more: str) -> list[str]:
    return ["--config", str(config), "--audio", str(corpus), "--out", str(out), *more]


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


KINDS = {(5, 3): nn.BatchNorm1d, (5, 3, 4, 2): nn.BatchNorm2d, (5, 4, 3): NodeBatchNorm}


@pytest.mark.parametrize(
    "settings", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
@pytest.mark.parametrize("shape", KINDS)
def test_a_shared_norm_is_a_batch_norm(
    group_of_one: None, shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    both = [nn.Sequential(nn.Conv1d(1, 1, 1), KINDS[shape](3, **settings)) for _ in range(2)]
    for parameter in both[0][1].parameters():
        nn.init.uniform_(parameter)
    both[1].load_state_dict(both[0].state_dict())
    share_norms(both[1])
    assert isinstance(both[1][1], SharedBatchNorm)
    x = torch.randn(shape)
    results = []
    for _, norm in both:
        given = x.clone().requires_grad_()
        y = norm(given)
        (y**3).sum().backward()
        norm(2 * given)
        results.append((y.detach(), given.grad, *(p.grad for p in norm.parameters()), *norm.buffers()))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.allclose(both[0][1].eval()(x), both[1][1].eval()(x), atol=1e-5)


@pytest.mark.parametrize("name", model_names())
def test_every_network_can_share_its_norms(group_of_one: None, name: str) -> None:
    model = create_model(name, **small_config(name))
    share_norms(model)
    waveforms = torch.randn(4, model.clip_samples) * 0.1
    for training in (True, False):
        assert torch.isfinite(model.train(training)(waveforms).logits).all()


def test_integers_are_trained_by_one_process(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start.safetensors"
    save_checkpoint(create_model("fscnn", clip_samples=CLIP, channels=(8,) * 8), start)
    monkeypatch.setattr("train.session.join_ranks", lambda device: TwoRanks())
    with pytest.raises(UserError, match="without torchrun"):
        qat.main([*flags(write_recipe(tmp_path), corpus, tmp_path / "out"), "--start", str(start)])


def test_a_layer_that_one_rank_dropped_has_a_gradient_of_zero(group_of_one: None, tmp_path: Path) -> None:
    averaged: list[int] = []

    class Listening(TwoRanks):
        def average(self, tensors: Iterable[Tensor]) -> None:
            averaged.append(len(list(tensors)))

    recipe = read_recipe(write_recipe(tmp_path))
    rows, clips = [], []
    for seed, label in enumerate(("spoof", "bonafide")):
        rows.append(Row(f"{seed}.wav", label, "train"))
        clips.append(np.rint(speech_like(seed, 9_000) * 20_000).astype(np.int16))
    batches = Batches(rows, clips, recipe.data, Augmentation(recipe.augment, []), 0)
    training = Run(recipe, tmp_path, ranks=Listening())
    model = training._model
    model.classify.register_parameter("dropped", nn.Parameter(torch.zeros(3)))  # heard by nobody here
    training._average["classify.dropped"] = torch.zeros(3)
    training._train_step(0, batches.batch(0, 8))
    assert averaged[0] == len(list(model.parameters()))
    assert model.classify.dropped.grad is not None


def test_ranks_draw_different_dropout_and_one_draws_as_ever() -> None:
    assert Ranks().seed(7) == 7
    assert len({Ranks(rank, 4).seed(step) for rank in range(4) for step in range(9)}) == 36


@pytest.mark.slow
def test_two_ranks_give_the_curve_of_one_with_twice_the_batch(corpus: Path, tmp_path: Path) -> None:
    """The recipe's batch is that of all ranks: of 8 crops, each of two ranks hears 4."""
    config = write_recipe(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(REPOSITORY / "train/fit.py"), *flags(config, corpus, tmp_path / "two")]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600)
    threads = torch.get_num_threads()
    assert fit.main(flags(config, corpus, tmp_path / "one")) == 0
    torch.set_num_threads(threads)
    one, two = (np.loadtxt(tmp_path / name / "metrics.tsv", skiprows=1) for name in ("one", "two"))
    assert np.abs(one[:, 1] - two[:, 1]).max() < SAME_CURVE
    assert np.ptp(one[:, 1]) > 5 * SAME_CURVE  # the curve moves
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )


@pytest.mark.slow
def test_a_run_killed_at_ten_random_points_ends_in_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    config = write_recipe(tmp_path, steps=600, validate_every=150, save_every=5)
    threads = torch.get_num_threads()
    assert fit.main(flags(config, corpus, tmp_path / "whole")) == 0
    torch.set_num_threads(threads)
    generator, out, kills = np.random.default_rng(0), tmp_path / "killed", 0
    while kills < 10:
        states = saved_states(out)
        how = ["--resume"] if states else ["--force"]
        command = [sys.executable, str(REPOSITORY / "train/fit.py"), *flags(config, corpus, out, *how)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            # Some die while they start, most somewhere behind the first state that they save.
            wanted = 0 if generator.random() < 0.2 else 1
            while process.poll() is None and wanted and saved_states(out)[-1:] == states[-1:]:
                time.sleep(0.02)
            time.sleep(generator.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it finished before it could be killed often enough"
        kills += 1
    assert fit.main(flags(config, corpus, out, "--resume")) == 0
    torch.set_num_threads(threads)
    for name in ("final.safetensors", "best.safetensors", "metrics.tsv"):
        digests = {
            hashlib.sha256((tmp_path / run / name).read_bytes()).hexdigest() for run in ("whole", "killed")
        }
        assert len(digests) == 1, name
