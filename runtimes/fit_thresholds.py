"""Fits thresholds and calibration to a model file's own scores on labelled speech, for its manifest.

    python runtimes/fit_thresholds.py out/mine.onnx --protocol labels.tsv --audio clips
    python runtimes/fit_thresholds.py out/fscnn.onnx --protocol labels.tsv --audio calls --split dev --force

For files that have none, such as those of your own checkpoints, and where a file is to decide about speech
unlike that which it was fitted on. Every trial is heard as recorded, in six mishaps and without the silence
around its speech (antispoof/channel/conditions.py), as those of the bundled detectors were; --as-recorded
hears it as it is alone, which fits where the trials went through all that the speech to be judged will.

Use trials that no figure is reported on. The file itself stays as it is; a signature no longer fits, and apps
refuse the file until it is signed again (export/sign.py). Halves for streams (.cached.json) have the
thresholds of the checkpoint that they were made of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from antispoof.audio import fit_length, load_audio
from antispoof.channel.conditions import CLEAN, FITTED, hear
from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.manifest import manifest_path
from antispoof.metrics import error_rates
from antispoof.outputs import refuse_existing, write_whole
from antispoof.protocols import BONAFIDE, LAYOUTS, UNKNOWN, read_protocol, resolve_audio
from antispoof.signature import signature_path
from antispoof.thresholds import Decisions, fit_decisions
from runtimes import Runtime, load

SPLIT = "dev"


def fitting_split(protocol: Path, format: str | None = None) -> str | None:
    """Returns the split of a list that is fitted on where none is named; None if the list is not divided.

    Raises:
        UserError: The list cannot be read.
    """
    divided = any(trial.split != UNKNOWN for trial in read_protocol(protocol, format))
    return SPLIT if divided else None


@dataclass(frozen=True)
class Fitted:
    """What was fitted to a file, and the scores (trials, ways) that it was fitted to."""

    decisions: Decisions
    bonafide: np.ndarray
    spoof: np.ndarray


def fit(
    runtime: Runtime,
    protocol: Path,
    audio: Path,
    *,
    format: str | None = None,
    split: str | None = None,
    conditions: Sequence[str] = FITTED,
) -> Fitted:
    """Fits thresholds and calibration to a file's scores, and says on stderr what the trials cannot show.

    Args:
        runtime: The file.
        protocol: A list of labelled trials.
        audio: The folder that their names begin at.
        format: Of the list; recognised from its first line if None.
        split: Of the list; if None, dev where the list is divided, and all of it where it is not.
        conditions: Under which every trial is heard, those of `antispoof.channel.conditions`.

    Raises:
        UserError: As `read_protocol` and `fit_decisions`; or a recording is missing or cannot be scored.
    """
    split = split or fitting_split(protocol, format)
    trials = read_protocol(protocol, format, split)
    genuine = np.array([trial.label == BONAFIDE for trial in trials])
    if genuine.all() or not genuine.any():
        raise UserError(f"{protocol}: every trial is {trials[0].label}; thresholds need both classes")
    scores = _score(runtime, [resolve_audio(trial, audio) for trial in trials], conditions)
    bonafide, spoof = scores[genuine], scores[~genuine]
    source = protocol.name + (f", split {split}" if split else "")
    data = f"{len(bonafide)} bona fide and {len(spoof)} spoofed trials of {source}, {', '.join(conditions)}"
    decisions = fit_decisions(bonafide, spoof, data)
    for reason in decisions.left_out:
        print(f"no threshold for {reason}", file=sys.stderr)
    return Fitted(decisions, bonafide, spoof)


def _score(runtime: Runtime, recordings: Sequence[Path], conditions: Sequence[str]) -> np.ndarray:
    """Returns a file's scores (trials, ways) float64."""
    samples = runtime.input.samples
    scores = []
    for index, path in enumerate(tqdm(recordings, desc="scoring", unit="trial", disable=None)):
        waveform = load_audio(path)  # as a whole: what befalls a recording comes before it is cut
        ways = [way for condition in conditions for way in hear(waveform, condition, index)]
        scores.append([runtime.score(fit_length(way, samples)[None])[0] for way in ways])
    return np.array(scores, np.float64)


def build_parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    p = argparse.ArgumentParser(
        prog="fit_thresholds.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("model_file", type=Path, metavar="FILE", help="an exported file, its manifest beside it")
    p.add_argument("--protocol", type=Path, required=True, help="the list of trials with their labels")
    p.add_argument("--protocol-format", choices=LAYOUTS, help="default: recognised from its first line")
    p.add_argument("--audio", type=Path, required=True, metavar="DIR", help="folder of the trials' audio")
    p.add_argument("--split", help=f"of the list (default: {SPLIT}, or all of a list that is not divided)")
    p.add_argument("--as-recorded", action="store_true", help="hear the trials as they are, in no mishap")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="threads within one run (default 1)")
    p.add_argument("--force", action="store_true", help="replace thresholds that the file has")
    return p


def table(fitted: Fitted) -> str:
    """Returns what each threshold decides wrongly about the trials that it was fitted on."""
    lines = [f"{'threshold':<10} {'score':>9} {'refused':>9} {'passed':>9}"]
    for point in fitted.decisions.thresholds:
        rates = error_rates(fitted.bonafide.ravel(), fitted.spoof.ravel(), point.score)
        lines.append(f"{point.name:<10} {point.score:>9.4g} {rates.miss:>9.1%} {rates.false_alarm:>9.1%}")
    map = fitted.decisions.calibration
    return "\n".join([*lines, f"log-likelihood ratio: {map.scale:.4g} * score {map.offset:+.4g}"])


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    runtime = load(args.model_file, threads=args.threads)
    manifest = runtime.manifest
    if manifest is None:
        raise UserError(f"{args.model_file} has no manifest to carry thresholds; export it first")
    if (manifest.thresholds or manifest.calibration) and not args.force:
        source = (manifest.calibration or manifest.thresholds[0]).data
        raise UserError(f"{args.model_file} has thresholds, of {source}; --force replaces them")
    sidecar = manifest_path(args.model_file)
    refuse_existing(sidecar, force=True)
    fitted = fit(
        runtime,
        args.protocol,
        args.audio,
        format=args.protocol_format,
        split=args.split,
        conditions=(CLEAN,) if args.as_recorded else FITTED,
    )
    decisions = fitted.decisions
    changed = replace(manifest, calibration=decisions.calibration, thresholds=decisions.thresholds)
    write_whole(sidecar, changed.to_json())
    if signature_path(sidecar).exists():
        print(f"{sidecar.name} changed: sign it again (export/sign.py)", file=sys.stderr)
    print(table(fitted))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
