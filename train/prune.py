"""Takes whole channels out of a trained detector, those that do least, to be fine-tuned afterwards.

    python train/prune.py RUN/best.safetensors --keep 0.75 --out pruned.safetensors
    python train/distill.py --config train/configs/fscnn-mean.yaml --audio DIR --more COPIES \
        --start pruned.safetensors --teacher RUN/best.safetensors --out PRUNED

What a channel does is measured by the length of its filter with its norm folded in (Li et al., "Pruning
filters for efficient ConvNets", arXiv 1608.08710); channels that a residual sum ties together go together.
What is left is a smaller network of the same kind, which every other command takes as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from antispoof.checkpoint import load_model, save_checkpoint
from antispoof.errors import UserError, run
from antispoof.models import Detector, create_model
from antispoof.models.fscnn import ConvNorm, FineStructureCnn, SeparableBlock

MULTIPLE = 8  # numbers of channels that processors like


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="prune.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="what is pruned")
    parser.add_argument(
        "--keep", type=float, default=0.75, help="share of the channels (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="the pruned weights, .safetensors")
    parser.add_argument("--force", action="store_true", help="replace --out")
    args = parser.parse_args(argv)
    if not 0 < args.keep <= 1:
        raise UserError(f"--keep must be above 0 and at most 1, not {args.keep:g}")
    if args.out.suffix != ".safetensors":
        raise UserError(f"--out must end in .safetensors, not be {args.out}")
    if args.out.exists() and not args.force:
        raise UserError(f"{args.out} exists; --force replaces it")
    before = load_model(args.checkpoint)
    after = prune(before, args.keep)
    save_checkpoint(after, args.out)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (before, after)]
    print(
        f"{sizes[0]:,} -> {sizes[1]:,} parameters, channels {list(after.overrides['channels'])}: {args.out}"
    )
    return 0


def prune(model: Detector, keep: float) -> Detector:
    """Returns a copy of ``model`` with about the share ``keep`` of its channels.

    Raises:
        UserError: It is not known how to prune this model.
    """
    if not isinstance(model, FineStructureCnn):
        raise UserError(f"only fscnn can be pruned, not {model.name}")
    kept = _kept_channels(model, keep)
    channels = tuple(len(indices) for indices in kept)
    smaller = create_model(model.name, **{**model.overrides, "channels": channels})
    smaller.load_state_dict(_cut(model.state_dict(), kept))
    return smaller.eval()


def _stages(model: FineStructureCnn) -> list[ConvNorm]:
    """Returns what makes the channels of each stage."""
    stages = [m.pointwise if isinstance(m, SeparableBlock) else m for m in model.encoder]
    return [stage for stage in stages if isinstance(stage, ConvNorm)]  # which are all


def _kept_channels(model: FineStructureCnn, keep: float) -> list[Tensor]:
    """Returns the channels of each stage that stay, in order."""
    lengths = [_lengths(stage) for stage in _stages(model)]
    tied = [isinstance(m, SeparableBlock) and m.keeps_shape for m in model.encoder]
    kept: list[Tensor] = []
    for stage in range(len(lengths)):
        if tied[stage]:
            kept.append(kept[-1])
            continue
        together = stage + 1
        while together < len(lengths) and tied[together]:
            together += 1
        score = torch.stack(lengths[stage:together]).square().sum(dim=0)
        count = _rounded(keep * len(score), len(score))
        # A block that changed its width must go on doing so, or it would gain a residual sum.
        block = model.encoder[stage]
        unit_stride = isinstance(block, SeparableBlock) and block.depthwise.conv.stride == (1, 1)
        if unit_stride and count == len(kept[-1]):
            count = min(count + MULTIPLE, len(score))
        kept.append(score.topk(count).indices.sort().values)
    return kept


def _rounded(count: float, most: int) -> int:
    """Returns ``count`` as a multiple of `MULTIPLE`, or all there are, which need not be one."""
    return most if count >= most else min(most, max(MULTIPLE, MULTIPLE * round(count / MULTIPLE)))


def _lengths(stage: ConvNorm) -> Tensor:
    """Returns the length of each filter ``(channels,)`` with its norm folded in."""
    norm = stage.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return (stage.conv.weight.flatten(1).norm(dim=1) * scale.abs()).detach()


def _cut(weights: dict[str, Tensor], kept: Sequence[Tensor]) -> dict[str, Tensor]:
    """Returns the weights of the network that has only the channels ``kept`` of each stage."""
    last = kept[-1]
    result = {}
    for name, value in weights.items():
        place = name.split(".")
        if place[0] == "encoder" and value.dim():
            stage = int(place[1])
            inner = stage > 0 and place[2] == "depthwise"  # works on the channels of the stage before
            value = value[kept[stage - 1] if inner else kept[stage]]
            if stage > 0 and place[2:4] == ["pointwise", "conv"]:
                value = value[:, kept[stage - 1]]
        elif place[0] == "bands" and value.dim():
            value = value[last]
        elif name == "classify.weight":  # reads means, then deviations
            value = value.unflatten(1, (2, -1))[:, :, last].flatten(1)
        result[name] = value
    return result


if __name__ == "__main__":
    run(main)
