"""Weights of DistillMOS under its authors' names, as their package has them, though of chance."""

from __future__ import annotations

from pathlib import Path

import torch

from train.distill_mos import DistillMos, DistillMosConfig

AUTHORS_NAMES = {
    "convolutions.": "cnn.cnn.",
    "norm_maps.": "transformer_pool_attn.norm_input.",
    "norm_input.": "transformer_pool_attn.transformer.norm.",
    "positions": "transformer_pool_attn.transformer.position_encoding.pe",
    "narrow.": "transformer_pool_attn.transformer.linear_proj.",
    "transformer.": "transformer_pool_attn.transformer.transformer_encoder.",
    "norm_output.": "transformer_pool_attn.norm_trans.",
    "attention.0.": "transformer_pool_attn.pool.linear1.",
    "attention.2.": "transformer_pool_attn.pool.linear2.",
    "rate.": "transformer_pool_attn.pool.linear3.",
}


def write_weights(path: Path) -> DistillMos:
    """Writes a checkpoint; returns the network it is of."""
    torch.manual_seed(3)
    model = DistillMos(DistillMosConfig()).eval()
    torch.nn.init.normal_(model.positions)
    named = {}
    for name, value in model.state_dict().items():
        [own] = [prefix for prefix in AUTHORS_NAMES if name.startswith(prefix)]
        named[AUTHORS_NAMES[own] + name.removeprefix(own)] = value
    torch.save({"model": named}, path)
    return model
