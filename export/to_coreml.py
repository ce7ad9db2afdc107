"""Exports a detector to a Core ML package and proves, without a Mac, that it scores like PyTorch.

    python export/to_coreml.py                                  # the bundled model, into out/
    python export/to_coreml.py --precision mixed                # float16, but for what must be float32
    python export/to_coreml.py --checkpoint my.pth --precision float16                # for any processor
    python export/to_coreml.py --checkpoint my.pth --compute-units neural-engine      # put for that one
    python export/to_coreml.py --checkpoint my.pth --verify-audio clips/ --target iOS18

In float16 alone the check refuses both bundled detectors: some scores of theirs move by more than it allows.
`fscnn` names its front end as what needs float32, and passes as `mixed`; `aasist-l` has no such part.

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
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from antispoof.errors import UserError, run
from antispoof.formats import format_named
from antispoof.manifest import Manifest
from antispoof.models import Detector
from antispoof.outputs import refuse_to_replace
from antispoof.pretrained import Weights
from antispoof.speechlike import speech_like_batch
from export import coreml_file
from export.graph import INPUT_NAME, OUTPUT_NAME, ScoreGraph
from export.pipeline import (
    Conversion,
    Exported,
    Options,
    add_arguments,
    export,
    options_of,
    print_table,
    stem_of,
    take_weights,
)
from export.placement import place
from export.targets import load_target
from runtimes.eager import EagerRuntime
from runtimes.golden import golden_paths, write_golden
from runtimes.graphs import read_graph
from runtimes.package_files import write_package

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
        help="what is computed and stored in (default float32; for the Neural Engine mixed where the network "
        "names a part that needs float32, else float16); mixed: float16 but for that part, or for --float32",
    )
    parser.add_argument(
        "--compute-units",
        choices=coreml_file.COMPUTE_UNITS,
        default="any",
        help="neural-engine: same scores, in shapes and operations that the Neural Engine takes",
    )
    parser.add_argument(
        "--float32",
        action="append",
        default=[],
        metavar="NAME",
        help="with --precision mixed, instead of what the network names: kind or name of operations that "
        "stay float32, or a part of the path of the source that they come from; may be repeated",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    args = build_parser().parse_args(argv)
    options = options_of(args)
    exported = write(
        take_weights(options),
        options,
        target=args.target,
        precision=args.precision,
        compute_units=args.compute_units,
        float32=args.float32,
    )
    print_table(exported)
    return 0


def write(
    weights: Weights,
    options: Options,
    *,
    target: str = coreml_file.DEFAULT_TARGET,
    precision: str | None = None,
    compute_units: str = "any",
    float32: Sequence[str] = (),
) -> Exported:
    """Writes and verifies the package, and its golden clips beside it.

    Args:
        weights: The detector.
        options: Those of every exporter.
        target: The oldest system that the package is for.
        precision: What is computed in; what suits the compute units if None.
        compute_units: Which processor the network is put for.
        float32: What stays float32 where precision is mixed, instead of what the network names.

    Raises:
        UserError: As `export`; or what stays float32 does not go with the precision.
        CheckFailed: As `export`.
    """
    precision, wide = precision_of(weights.detector, precision, compute_units, float32)
    how: dict[str, Any] = {
        "target": target,
        "precision": precision,
        "wide": wide,
        "compute_units": compute_units,
    }
    facts: dict[str, str] = {}

    def convert(graph: ScoreGraph, manifest: Manifest, path: Path) -> None:
        converted = coreml_file.convert(graph, **how)
        write_package(converted.model, manifest, path)
        kinds = converted.operations
        facts["operations"] = f"{sum(kinds.values())} ({len(kinds)} kinds), {target}, {precision}"
        if compute_units == "neural-engine":
            facts["not for the engine"] = outside_the_engine(path)
        if wide:
            facts["in float32"] = f"{converted.wide} operations ({', '.join(wide)})"

    row = format_named("coreml")
    package = row.path_in(options.out, stem_of(weights, options.name))
    refuse_to_replace(golden_paths(package), options.force)
    conversion = Conversion(
        row,
        convert,
        partial(coreml_file.run_part, **how),
        precision=precision,
        recipe=recipe(compute_units, wide),
    )
    exported = export(weights, conversion, options)
    facts["golden"] = add_golden(exported, weights, row.tolerance_of(precision))
    return replace(exported, facts=facts)


def precision_of(
    detector: Detector, precision: str | None, compute_units: str, float32: Sequence[str]
) -> tuple[str, Sequence[str]]:
    """Returns what the package computes in, and what of it stays float32 where that is mixed.

    Raises:
        UserError: Nothing was named that stays float32, or something was and all or nothing does.
    """
    default = "float32"
    if compute_units == "neural-engine":
        default = "mixed" if float32 or detector.float32_parts else "float16"
    precision = precision or default
    if precision != "mixed":
        if float32:
            raise UserError("--float32 goes with --precision mixed")
        return precision, ()
    wide = float32 or detector.float32_parts
    if not wide:
        raise UserError(
            f"--precision mixed needs --float32: {detector.name} names no part that needs float32"
        )
    return precision, wide


def recipe(compute_units: str, float32: Sequence[str]) -> str:
    """Returns what the manifest says of how the network was put."""
    parts = [] if compute_units == "any" else [compute_units]
    parts += [f"float32: {', '.join(float32)}"] if float32 else []
    return "; ".join(parts) or "none"


def outside_the_engine(package: Path) -> str:
    """Returns what of a package the Neural Engine leaves to other processors, as far as that is known."""
    graph = read_graph(package)
    placement = place(graph, load_target("ane", "coreml"))
    if len(placement.refused) == len(graph.nodes):
        return "all of it, as it computes in float16 only"
    kinds = Counter(graph.nodes[index].kind for index in placement.refused)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"
    return f"{listed}; {100 * placement.fallback:.1f} % of the multiply-adds"


def add_golden(exported: Exported, weights: Weights, tolerance: float) -> str:
    """Writes generated clips and PyTorch's scores of them beside the package; returns what was written."""
    clips = speech_like_batch(GOLDEN_CLIPS, weights.detector.clip_samples, GOLDEN_SEED)
    scores = EagerRuntime(weights.detector, exported.path).score(clips)
    write_golden(exported.path, clips, scores, names=(INPUT_NAME, OUTPUT_NAME), tolerance=tolerance)
    return f"{GOLDEN_CLIPS} generated clips and their scores in {golden_paths(exported.path)[0].name}"


if __name__ == "__main__":
    run(main)
