"""Exports a detector to a Core ML package and proves, without a Mac, that it scores like PyTorch.

    python export/to_coreml.py                                  # the bundled model, into out/
    python export/to_coreml.py --precision float16              # what the Neural Engine computes in
    python export/to_coreml.py --precision mixed --float32 softmax --float32 scan/
    python export/to_coreml.py --checkpoint my.pth --verify-audio clips/ --target iOS18

Writes NAME.mlpackage, its manifest, and golden clips with their scores: NAME.mlpackage.golden.json and
.golden.f32. Exit code 1, and nothing written, where the scores of the package are not those of PyTorch.
On Linux they are computed from the written files by an evaluator of their own (see runtimes/mil.py).

On a Mac, the same files check Core ML itself:

    from runtimes import load
    from runtimes.golden import check_golden
    print(check_golden(load("out/aasist-l.mlpackage")))         # largest difference; raises if too large

or with nothing but coremltools (pip install coremltools):

    import json, numpy as np, coremltools as ct; name = "out/aasist-l.mlpackage"
    golden = json.load(open(name + ".golden.json")); model = ct.models.MLModel(name)
    clips = np.fromfile(name + ".golden.f32", "<f4").reshape(golden["clips"], 1, golden["samples"])
    print([float(model.predict({"waveform": x})["score"][0]) - s for x, s in zip(clips, golden["scores"])])
"""

from __future__ import annotations

import argparse
from pathlib import Path

from antispoof.errors import UserError, run
from antispoof.formats import format_named
from antispoof.manifest import Manifest
from antispoof.pretrained import Weights
from antispoof.speechlike import speech_like_batch
from export import coreml_file
from export.graph import INPUT_NAME, OUTPUT_NAME, ScoreGraph
from export.pipeline import Exported, add_arguments, export, print_table, take_weights
from runtimes.eager import EagerRuntime
from runtimes.golden import golden_paths, write_golden

GOLDEN_CLIPS = 4
GOLDEN_SEED = 1000  # other clips than those that verify the export


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    parser = argparse.ArgumentParser(
        prog="to_coreml.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--target",
        choices=coreml_file.TARGETS,
        default=coreml_file.DEFAULT_TARGET,
        help=f"oldest system that the package is for (default {coreml_file.DEFAULT_TARGET})",
    )
    parser.add_argument(
        "--precision",
        choices=coreml_file.PRECISIONS,
        default="float32",
        help="what is computed and stored in (default float32); mixed: float16 but for --float32",
    )
    parser.add_argument(
        "--float32",
        action="append",
        default=[],
        metavar="NAME",
        help="with --precision mixed: kind or name of operations that stay float32, or a part of the path "
        "of the source that they come from; may be repeated",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    args = build_parser().parse_args(argv)
    if (args.precision == "mixed") != bool(args.float32):
        raise UserError("--precision mixed and --float32 go together")
    facts: dict[str, str] = {}

    def convert(graph: ScoreGraph, manifest: Manifest, path: Path) -> None:
        converted = coreml_file.convert(
            graph, target=args.target, precision=args.precision, wide=args.float32
        )
        coreml_file.write_package(converted, manifest, path)
        kinds = converted.operations
        facts["operations"] = f"{sum(kinds.values())} ({len(kinds)} kinds), {args.target}, {args.precision}"
        if args.float32:
            facts["in float32"] = f"{converted.wide} operations ({', '.join(args.float32)})"

    weights = take_weights(args)
    row = format_named("coreml")
    target = args.out / f"{args.name or weights.detector.name}{row.suffixes[0]}"
    if not args.force and (existing := [path for path in golden_paths(target) if path.exists()]):
        raise UserError(f"{existing[0]} exists; --force replaces it")
    exported = export(
        weights,
        row,
        convert,
        out=args.out,
        name=args.name,
        precision=args.precision,
        recipe=f"float32: {', '.join(args.float32)}" if args.float32 else "none",
        audio=args.verify_audio,
        force=args.force,
    )
    facts["golden"] = add_golden(exported, weights, row.tolerance_of(args.precision))
    print_table(exported, facts)
    return 0


def add_golden(exported: Exported, weights: Weights, tolerance: float) -> str:
    """Writes generated clips and PyTorch's scores of them beside the package; returns what was written."""
    clips = speech_like_batch(GOLDEN_CLIPS, weights.detector.clip_samples, GOLDEN_SEED)
    scores = EagerRuntime(weights.detector, exported.path).score(clips)
    write_golden(exported.path, clips, scores, names=(INPUT_NAME, OUTPUT_NAME), tolerance=tolerance)
    return f"{GOLDEN_CLIPS} generated clips and their scores in {golden_paths(exported.path)[0].name}"


if __name__ == "__main__":
    run(main)
