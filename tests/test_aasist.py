"""AASIST and AASIST-L against the paper's sizes and against what the public code scores."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from antispoof.audio import fit_length, load_audio
from antispoof.checkpoint import load_model, read_checkpoint
from antispoof.models import create_model
from antispoof.models.layers.graph import GraphPool, pair_kinds, rank_descending
from antispoof.models.layers.sinc import SincConv, mel_band_edges
from antispoof.weight_names import map_names
from runtimes.eager import EagerRuntime

# Published sizes count a norm in front of blocks 1 to 5 whose output the public code overwrites.
PUBLISHED_PARAMETERS = {"aasist": 297_866, "aasist-l": 85_306}
DEAD_PARAMETERS = {"aasist": 512, "aasist-l": 272}
CHECKPOINTS = {"aasist": "AASIST.pth", "aasist-l": "AASIST-L.pth"}
# The oracle's scores were printed with six decimals by another implementation of the same sums.
ORACLE_TOLERANCE = 1e-4
QUICK_CLIPS = 10


def oracle_rows(shared: Path, model: str) -> list[tuple[Path, float, float]]:
    column = model.replace("-", "_")
    with (shared / "oracles" / "aasist-scores.dev.tsv").open(encoding="utf-8") as file:
        return [
            (
                shared / "audio" / row["path"],
                float(row[f"{column}_logit_spoof"]),
                float(row[f"{column}_logit_bonafide"]),
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


@pytest.mark.parametrize("name", sorted(PUBLISHED_PARAMETERS))
def test_parameters_are_the_published_ones_less_the_dead(name: str) -> None:
    live = sum(p.numel() for p in create_model(name).parameters())
    assert live + DEAD_PARAMETERS[name] == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_public_checkpoints_hold_the_live_weights_and_the_dead_and_nothing_else(
    name: str, shared: Path
) -> None:
    checkpoint = read_checkpoint(shared / "weights" / CHECKPOINTS[name])
    model = create_model(name)
    dropped = set(checkpoint.tensors) - {
        old for old, value in checkpoint.tensors.items() if map_names(model, {old: value})
    }
    assert all(".bn1." in key for key in dropped)
    learned = [key for key in dropped if key.endswith((".weight", ".bias"))]
    assert sum(checkpoint.tensors[key].numel() for key in learned) == DEAD_PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_scores_equal_the_public_code(name: str, shared: Path) -> None:
    check_against_oracle(name, shared, QUICK_CLIPS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_scores_equal_the_public_code_on_every_dev_clip(name: str, shared: Path) -> None:
    check_against_oracle(name, shared, 100)


def check_against_oracle(name: str, shared: Path, count: int) -> None:
    rows = oracle_rows(shared, name)
    assert len(rows) == 100
    model = load_model(shared / "weights" / CHECKPOINTS[name])
    assert model.name == name
    for path, spoof, bonafide in rows[:: 100 // count]:
        clip = torch.from_numpy(fit_length(load_audio(path)))[None]
        with torch.inference_mode():
            logits = model(clip).logits[0].numpy()
        np.testing.assert_allclose(logits, [spoof, bonafide], atol=ORACLE_TOLERANCE, rtol=0)


def test_another_partys_training_takes_the_same_path(shared: Path) -> None:
    model = load_model(shared / "weights" / "AASIST-L-retrained.pth")
    path, *_ = oracle_rows(shared, "aasist-l")[0]
    score = EagerRuntime(model, path).score(fit_length(load_audio(path))[None])
    assert model.name == "aasist-l"
    assert score.shape == (1,)


def test_weights_work_at_another_clip_length() -> None:
    model = create_model("aasist-l", clip_samples=24_000)
    full = create_model("aasist-l")
    model.load_state_dict(full.state_dict())
    with torch.inference_mode():
        assert model.eval()(torch.randn(1, 24_000)).logits.shape == (1, 2)


def test_sinc_filters_pass_their_band_and_stop_the_rest() -> None:
    bands, taps = 70, 129
    edges = mel_band_edges(bands)
    response = np.abs(np.fft.rfft(SincConv(bands, taps).filters[:, 0].numpy(), 4096))
    hertz = np.fft.rfftfreq(4096, 1 / 16_000)
    # From band 40 on, a band is wider than the window's main lobe (4 * 16000 / 129 = 496 Hz)... of
    # those, the centre passes whole and what is a main lobe away is stopped.
    main_lobe = 4 * 16_000 / taps
    for band in np.flatnonzero(np.diff(edges) > main_lobe / 2):
        low, high = edges[band], edges[band + 1]
        centre = response[band, np.argmin(np.abs(hertz - (low + high) / 2))]
        outside = response[band, (hertz < low - main_lobe) | (hertz > high + main_lobe)]
        assert centre > 0.6
        assert outside.max(initial=0) < 0.01


def test_pooling_keeps_the_best_nodes_in_the_order_of_their_scores() -> None:
    torch.manual_seed(0)
    pool = GraphPool(features=5, ratio=0.5).eval()
    x = torch.randn(3, 9, 5)
    score = torch.sigmoid(pool.gate(x))
    best = torch.topk(score[..., 0], 4, dim=1).indices
    expected = torch.stack([(x * score)[i, best[i]] for i in range(3)])
    torch.testing.assert_close(pool(x), expected)


def test_ranks_are_a_permutation_even_among_equals() -> None:
    score = torch.tensor([[1.0, 2.0, 2.0, 1.0, 3.0], [0.5] * 5])[..., None]
    ranks = rank_descending(score)[:, 0]
    assert ranks.tolist() == [[3, 1, 2, 4, 0], [0, 1, 2, 3, 4]]


def test_pair_kinds_split_the_board_in_blocks() -> None:
    kinds = pair_kinds(2, 1)
    assert kinds.argmax(-1).tolist() == [[0, 0, 2], [0, 0, 2], [2, 2, 1]]
    assert (kinds.sum(-1) == 1).all()
