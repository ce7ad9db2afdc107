"""Exports a detector in two halves, for streams: only what a window adds to the last is computed.

    python export/to_onnx_cached.py                       # the bundled model, into out/
    python runtimes/stream.py out/fscnn.cached.json --wav call.wav --hop 0.5

Writes NAME.encoder.onnx (a window's newest samples to columns), NAME.backend.onnx (the columns of a window to
its score), where the fast way is not made of the same files NAME.fast.encoder.onnx and NAME.fast.backend.onnx
too, and NAME.cached.json, which says how they belong together. Models with nothing to keep are refused. Exit
code 1, and nothing written, where a window computed from kept columns does not score as PyTorch scores it
whole; of the fast way, where it does not score as its halves do in PyTorch.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from antispoof.errors import EXIT_DONE, CheckFailed, UserError, run
from antispoof.formats import format_named
from antispoof.lowering import lowering
from antispoof.manifest import File, describe_content
from antispoof.models import Detector
from antispoof.models.detector import Split
from antispoof.outputs import partial_folder, refuse_to_replace
from antispoof.pretrained import Weights
from antispoof.speechlike import speech_like
from export.graph import INPUT_NAME, OUTPUT_NAME, ScoreGraph
from export.onnx_file import DEFAULT_OPSET, quiet_exporter, strip_export
from export.pipeline import add_arguments, describe, options_of, stem_of, take_weights
from runtimes.cached import (
    SUFFIX,
    USE_KEY,
    CachedDetector,
    CachedFiles,
    Function,
    Halves,
    nearest_hop,
    open_cached,
)

HALVES = (".encoder.onnx", ".backend.onnx")
COLUMNS_NAME, CARRIED_NAME = "columns", "carried"
TOLERANCE = 1e-4
CHECK_HOP_SECONDS, CHECK_WINDOWS = 0.5, 4


def convert_encoder(split: Split, window: Tensor) -> Any:
    """Returns the first half as an ``onnx.ModelProto``, for any part of a window that may be asked for."""
    carried = [f"{CARRIED_NAME}.{index}" for index in range(len(split.carried))]
    # A length that is not fixed makes conditions that torch cannot decide and that always hold.
    lengths: Any = ({1: torch.export.Dim.DYNAMIC}, *(None for _ in carried))
    return _convert(
        split.encoder,
        (window, *split.carried),
        [INPUT_NAME, *carried],
        [COLUMNS_NAME, *(f"{name}.next" for name in carried)],
        lengths,
    )


def convert_back_end(split: Split, window: Tensor) -> Any:
    """Returns the second half likewise, for the columns of a window."""
    columns = _as_tuple(split.encoder(window, *split.carried))[0][..., -split.geometry.frames :]
    heard, names = ((window,), [INPUT_NAME]) if split.hears else ((), [])
    return _convert(split.back_end, (columns, *heard), [COLUMNS_NAME, *names], [OUTPUT_NAME])


def _convert(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], results: list[str], lengths: Any = None
) -> Any:
    with (
        warnings.catch_warnings(),
        quiet_exporter(),
        lowering(format_named("onnx").lowering),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        traced = torch.export.export(
            Positional(module),
            inputs,
            dynamic_shapes=(lengths,) if lengths else None,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=DEFAULT_OPSET,
            input_names=names,
            output_names=results,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto  # made anew each time it is asked for
    strip_export(proto)
    return proto


class Positional(nn.Module):
    """A module whose inputs are numbered, not named: torch names dynamic lengths by the arguments."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        """Returns what the module does."""
        return self.module(*inputs)


def _as_tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


def write(weights: Weights, folder: Path, stem: str) -> list[str]:
    """Writes the halves and what binds them; returns the files' names, the last that of what binds."""
    with lowering(format_named("onnx").lowering), torch.no_grad():
        model = ScoreGraph(weights.detector).detector
        exact, fast = (model.split(exact=way) for way in (True, False))
        window = model.example_input()
        if fast.encoder is exact.encoder:  # the same encoder has the same back end
            halves = [*_write_halves({"exact": exact, "fast": fast}, window, folder, stem)]
        else:
            halves = [
                *_write_halves({"exact": exact}, window, folder, stem),
                *_write_halves({"fast": fast}, window, folder, f"{stem}.fast"),
            ]
    manifest = describe(weights, format_named("onnx"), batch=1, precision="float32", recipe="none")
    (folder / f"{stem}{SUFFIX}").write_text(CachedFiles(manifest, *halves).to_json(), encoding="utf-8")
    files = [file.name for way in halves for file in (way.encoder, way.back_end)]
    return [*dict.fromkeys(files), f"{stem}{SUFFIX}"]


def _write_halves(ways: Mapping[str, Split], window: Tensor, folder: Path, stem: str) -> list[Halves]:
    """Writes the files of one encoder and back end; returns how each way uses them.

    How is also written into the encoder's file, whose sha256 binds it.
    """
    split = next(iter(ways.values()))
    first, second = (f"{stem}{ending}" for ending in HALVES)
    encoder = convert_encoder(split, window)
    back_end = _written(convert_back_end(split, window), folder / second)
    halves = {
        name: Halves(File("", 0, ""), back_end, way.geometry, _shapes(way), way.hears)
        for name, way in ways.items()
    }
    entry = encoder.metadata_props.add()
    entry.key = USE_KEY
    entry.value = json.dumps({name: one.use() for name, one in halves.items()}, sort_keys=True)
    written = _written(encoder, folder / first)
    return [replace(one, encoder=written) for one in halves.values()]


def _written(model: Any, path: Path) -> File:
    content = bytes(model.SerializeToString(deterministic=True))
    path.write_bytes(content)
    return describe_content(path.name, content)


def _shapes(split: Split) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(x.shape) for x in split.carried)


def in_pytorch(detector: Detector, hop_columns: int, *, exact: bool) -> CachedDetector:
    """Returns the halves in PyTorch, as the files are to be."""
    split = detector.split(exact=exact)
    nowhere = File("", 0, "")

    def run(module: nn.Module) -> Function:
        def function(*values: np.ndarray) -> list[np.ndarray]:
            with torch.inference_mode():
                results = _as_tuple(module(*map(torch.from_numpy, values)))
            return [result.numpy() for result in results]

        return function

    halves = Halves(nowhere, nowhere, split.geometry, _shapes(split), split.hears)
    return CachedDetector(run(split.encoder), run(split.back_end), halves, hop_columns)


def largest_difference(weights: Weights, path: Path, *, exact: bool) -> float:
    """Returns how far the files' scores of windows that follow one another are from PyTorch's.

    Exactly, those are of whole windows; otherwise, of the halves in PyTorch.
    """
    columns = nearest_hop(path, CHECK_HOP_SECONDS, exact=exact)
    _, cached = open_cached(path, columns, exact=exact)
    samples = weights.detector.clip_samples
    audio = speech_like(0, samples + CHECK_WINDOWS * cached.hop)
    windows = [audio[n * cached.hop :][:samples] for n in range(CHECK_WINDOWS + 1)]
    scores = [cached.score(window, follows=n > 0) for n, window in enumerate(windows)]
    if not exact:
        halves = in_pytorch(weights.detector, columns, exact=False)
        expected = np.array([halves.score(window, follows=n > 0) for n, window in enumerate(windows)])
    else:
        with torch.inference_mode():
            expected = weights.detector.score(weights.detector(torch.from_numpy(np.stack(windows)))).numpy()
    return float(np.abs(np.array(scores) - expected).max())


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: The model has nothing to keep, or a file exists.
        CheckFailed: The halves do not score as the whole.
    """
    parser = argparse.ArgumentParser(
        prog="to_onnx_cached.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.verify_audio:
        raise UserError("--verify-audio is not for this command: it compares on a stream of generated speech")
    if args.bisect:
        raise UserError("--bisect is not for this command: export/to_onnx.py --bisect looks at the whole")
    options = options_of(args)
    weights = take_weights(options)
    stem = stem_of(weights, options.name)
    possible = [f"{stem}{ending}" for ending in (*HALVES, *(f".fast{half}" for half in HALVES), SUFFIX)]
    refuse_to_replace([options.out / name for name in possible], options.force)
    with partial_folder(args.out) as folder:
        names = write(weights, folder, stem)
        differences = {}
        for way, exact in (("exact", True), ("fast", False)):
            difference = differences[way] = largest_difference(weights, folder / names[-1], exact=exact)
            if not difference <= TOLERANCE:
                raise CheckFailed(f"{way}: kept columns move the score by {difference:.1e}")
        for name in names:
            (folder / name).replace(args.out / name)
    for name in names:
        print(f"{args.out / name}  {(args.out / name).stat().st_size:,} bytes")
    print(f"exact: {differences['exact']:.1e} at most from whole windows in PyTorch (allowed {TOLERANCE:g})")
    print(f"fast: {differences['fast']:.1e} at most from its halves in PyTorch (allowed {TOLERANCE:g})")
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
