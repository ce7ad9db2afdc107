"""Exports AASIST in two halves, for streams: of a window that follows another, only what is new is computed.

    python export/to_onnx_cached.py                       # the bundled model, into out/
    python runtimes/stream.py out/aasist-l.cached.json --wav call.wav --hop 0.5

Writes NAME.encoder.onnx (waveform of any length to columns of 2187 samples), NAME.backend.onnx (the columns
of a window to its score) and NAME.cached.json, which says how they belong together. Exit code 1, and nothing
written, where a window computed from kept columns does not score as PyTorch scores it whole.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from antispoof.errors import EXIT_DONE, CheckFailed, UserError, run
from antispoof.formats import format_named
from antispoof.lowering import lowering
from antispoof.manifest import describe_content
from antispoof.models.aasist import Aasist
from antispoof.models.layers.residual import POOLED
from antispoof.pretrained import Weights
from antispoof.speechlike import speech_like
from export.graph import INPUT_NAME, OUTPUT_NAME, ScoreGraph
from export.onnx_file import DEFAULT_OPSET, quiet_exporter, strip_export
from export.pipeline import add_arguments, describe, partial_folder, take_weights
from runtimes.cached import HALO, SUFFIX, CachedFiles, Geometry, open_cached

COLUMNS_NAME = "columns"
TOLERANCE = 1e-4
CHECK_HOP, CHECK_WINDOWS = 4, 4


class BackEnd(nn.Module):
    """What follows the encoder: its map to a score."""

    def __init__(self, model: Aasist) -> None:
        super().__init__()
        self.model = model

    def forward(self, encoded: Tensor) -> Tensor:
        """Returns the score ``(batch,)`` of the map ``(batch, C, F, T)``."""
        return self.model.score(self.model.classify_map(encoded))


def geometry_of(model: Aasist) -> Geometry:
    """Returns how the encoder makes columns of samples."""
    encoder = model.encoder
    column = POOLED ** (len(encoder.blocks) + 1)
    return Geometry(model.clip_samples, column, encoder.frames(model.clip_samples), encoder.sinc.taps - 1)


def convert(module: nn.Module, example: Tensor, names: tuple[str, str], least: int | None = None) -> bytes:
    """Returns a half as the bytes of an ONNX file; ``least`` samples and more are legal where it is given."""
    shapes: Any = None
    if least is not None:
        shapes = ({1: torch.export.Dim("samples", min=least, max=example.shape[1])},)
    with (
        warnings.catch_warnings(),
        quiet_exporter(),
        lowering(format_named("onnx").lowering),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        # A length that is not fixed makes conditions that torch cannot decide and that always hold.
        traced = torch.export.export(
            module,
            (example,),
            dynamic_shapes=shapes,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=DEFAULT_OPSET,
            input_names=[names[0]],
            output_names=[names[1]],
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto  # made anew each time it is asked for
    strip_export(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def write(weights: Weights, folder: Path, stem: str) -> CachedFiles:
    """Writes both halves and what binds them into ``folder``."""
    with lowering(format_named("onnx").lowering):
        model = ScoreGraph(weights.detector).detector
    assert isinstance(model, Aasist)
    geometry, waveform = geometry_of(model), model.example_input()
    with torch.no_grad():
        columns = model.encoder(waveform)
    halves = {
        f"{stem}.encoder.onnx": convert(
            model.encoder,
            waveform,
            (INPUT_NAME, COLUMNS_NAME),
            least=(1 + HALO) * geometry.column + geometry.reach,
        ),
        f"{stem}.backend.onnx": convert(BackEnd(model), columns, (COLUMNS_NAME, OUTPUT_NAME)),
    }
    for name, content in halves.items():
        (folder / name).write_bytes(content)
    row = format_named("onnx")
    manifest = describe(weights, row, batch=1, precision="float32", recipe="none")
    files = CachedFiles(manifest, geometry, *(describe_content(name, half) for name, half in halves.items()))
    (folder / f"{stem}{SUFFIX}").write_text(files.to_json(), encoding="utf-8")
    return files


def largest_difference(weights: Weights, path: Path) -> float:
    """Returns how far windows computed from kept columns are from PyTorch's whole ones."""
    _, cached = open_cached(path, CHECK_HOP, exact=True)
    samples = weights.detector.clip_samples
    audio = speech_like(0, samples + CHECK_WINDOWS * cached.hop)
    windows = [audio[n * cached.hop :][:samples] for n in range(CHECK_WINDOWS + 1)]
    scores = [cached.score(window, follows=n > 0) for n, window in enumerate(windows)]
    with torch.inference_mode():
        whole = weights.detector.score(weights.detector(torch.from_numpy(np.stack(windows))))
    return float(np.abs(np.array(scores) - whole.numpy()).max())


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: The model is not of the AASIST family, or a file exists.
        CheckFailed: The halves do not score as the whole.
    """
    parser = argparse.ArgumentParser(
        prog="to_onnx_cached.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.verify_audio:
        raise UserError("--verify-audio is not for this command: it compares on a stream of generated speech")
    if args.checkpoint in (None, "official", "random"):
        args.model = args.model or "aasist-l"  # the default of the other commands keeps no columns
    weights = take_weights(args)
    if not isinstance(weights.detector, Aasist):
        raise UserError(f"{weights.detector.name} has no columns to keep; only aasist and aasist-l have")
    stem = args.name or weights.detector.name
    names = [f"{stem}{ending}" for ending in (".encoder.onnx", ".backend.onnx", SUFFIX)]
    if not args.force and (existing := [name for name in names if (args.out / name).exists()]):
        raise UserError(f"{args.out / existing[0]} exists; --force replaces it")
    with partial_folder(args.out) as folder:
        write(weights, folder, stem)
        difference = largest_difference(weights, folder / names[-1])
        if not difference <= TOLERANCE:
            raise CheckFailed(f"kept columns move the score by {difference:.1e} (allowed: {TOLERANCE:g})")
        for name in names:
            (folder / name).replace(args.out / name)
    for name in names:
        print(f"{args.out / name}  {(args.out / name).stat().st_size:,} bytes")
    print(f"largest difference from whole windows in PyTorch: {difference:.1e} (allowed: {TOLERANCE:g})")
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
