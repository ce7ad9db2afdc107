"""Fine-tunes a detector for integers: trains with rounding in the way, taught by its own float self.

    python train/qat.py --config train/configs/fscnn-qat.yaml --start RUN/best.safetensors \
        --audio DIR --out RUN-QAT
    python export/to_onnx.py --model fscnn --checkpoint RUN-QAT/final.safetensors --out out
    python quantize/onnx_int8.py out/fscnn.onnx --audio DIR

Weights and activations are rounded as quantize/onnx_int8.py will round them (see train/fake_quant.py). The
teacher is the checkpoint as it was, hearing the same crops; the section ``distill`` of the recipe says how
much it counts against the labels. What is written are float weights, to be exported and quantized like any
others.
Batch norms keep the statistics that the exporter folds. All else is as in train/fit.py.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import torch

from antispoof.errors import UserError, run
from train.distillation import Distillation
from train.fake_quant import FakeQuantization
from train.session import add_flags, carry_out, gather, list_recordings, prepare, ranks_of, recipe_of
from train.teachers import CropTeacher


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="qat.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser)
    args = parser.parse_args(argv)
    if args.start is None:
        raise UserError("give --start, the float checkpoint to fine-tune")
    recipe = recipe_of(args)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, hold_norms=True))
    with ranks_of(args) as ranks:
        if ranks.count > 1:
            raise UserError("the ranges of integers are those of one process: start this without torchrun")
        listed = list_recordings(args, recipe)
        device, layer = torch.device(args.device), recipe.distill.compared
        teacher = CropTeacher(args.start, recipe.data.crop_samples, device, layer)
        objective = Distillation(recipe.distill, recipe.loss, [teacher], teacher.features)
        dressing = FakeQuantization(recipe.quantize)
        method: dict[str, Any] = {
            "teachers": [{"file": args.start.name, "heard": teacher.key}],
            "rounded": dataclasses.asdict(recipe.quantize),
        }
        prepared = prepare(args, recipe, ranks, listed, objective=objective, dressing=dressing, method=method)
        carry_out(prepared, gather(args, recipe, ranks, listed))
    return 0


if __name__ == "__main__":
    run(main)
