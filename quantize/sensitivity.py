"""Finds the layers to leave in float: what each costs in score and EER as integers, and in time as float.

    python quantize/sensitivity.py out/aasist-l.onnx --audio clips --protocol clips/manifest.tsv
    python quantize/sensitivity.py out/aasist-l.onnx --audio clips --most-time 0.6 --most-kib 320
    python quantize/onnx_int8.py out/aasist-l.onnx --recipe auto --audio clips     # writes what is found

1. All layers are integers; then each alone is left in float, and the file scores the clips and is timed.
2. Layers are ranked by how much error each takes away for a millisecond.
3. From all integers on, the layers are left in float one after another, as ranked.
4. Of all that was measured, the Pareto front in size, time and error is taken; chosen is its least error
   within --most-time (of the float file's time) and --most-kib.

With --protocol, the clips are those of its --split (default dev) and the EER is measured too; without, they
are the calibration clips. Measurements are kept in MODEL.RECIPE.sensitivity.json: an interrupted search goes
on where it stopped, and a repeated one gives the same answer, which times alone would not; --force begins
anew. The answer is written to MODEL.RECIPE.front.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from onnx import ModelProto

from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.outputs import make_folder, write_whole
from antispoof.protocols import BONAFIDE, read_protocol, resolve_audio
from quantize.calibration import CLIPS, OBSERVERS, calibration_clips
from quantize.layer_search import MOST_TIME, Found, Limits, Material, Point, State, gain, key_of, search
from quantize.onnx_graph import OnnxGraph
from quantize.recipes import parse_recipe
from quantize.scope import layers_in_scope
from quantize.static_int import Calibrated, calibrate
from runtimes.clips import read_heads
from runtimes.ort import open_session


def names_of(model: ModelProto) -> dict[str, str]:
    """Returns for the output of each layer the name of its weights, which says what it is."""
    return {layer.node.output[0]: layer.weight for layer in layers_in_scope(OnnxGraph(model))}


def table(found: Found, names: dict[str, str]) -> str:
    """Returns the ranks and the front as text."""

    def line(point: Point, what: str) -> str:
        eer = "" if point.eer_difference is None else f"{point.eer_difference:+8.2%}"
        numbers = f"{point.rms:8.4f} {point.median:8.4f} {point.p95:8.4f} {eer:>8}"
        return f"{numbers} {point.time:6.3f} {point.bytes / 1024:7.1f}  {what}"

    head = f"{'rms':>8} {'median':>8} {'p95':>8} {'EER':>8} {'time':>6} {'KiB':>7}"
    rows = [f"{'gain/ms':>8} {'per KiB':>8} {head}  left in float", " " * 18 + line(found.none, "nothing")]
    for point in found.ranked:
        kib = (point.bytes - found.none.bytes) / 1024
        per_kib = f"{(found.none.rms - point.rms) / kib:8.4f}" if kib > 0 else f"{'free':>8}"
        rows.append(f"{gain(point, found.none):8.4f} {per_kib} {line(point, names[point.layers[0]])}")
    rows += ["", f"{head}  Pareto front: layers left in float"]
    for point in found.front:
        mark = " (chosen)" if point == found.chosen else ""
        rows.append(line(point, (", ".join(names[layer] for layer in point.layers) or "nothing") + mark))
    return "\n".join(rows)


def material_of(
    source: ModelProto, clips: np.ndarray, trials: tuple[Path, Path, str | None] | None
) -> Material:
    """Returns what to measure on: clips, the float file's scores of them, and labels if there are any.

    Args:
        source: The float model.
        clips: ``(clips, samples)``, taken where there are no trials.
        trials: A protocol, the folder of its audio, and which split of it.
    """
    bonafide = None
    if trials is not None:
        protocol, audio, split = trials
        listed = read_protocol(protocol, None, split)
        clips = read_heads([resolve_audio(trial, audio) for trial in listed], clips.shape[1])
        bonafide = np.array([trial.label == BONAFIDE for trial in listed])
    session = open_session(source.SerializeToString(), threads=1)
    scores = [session.run(None, {source.graph.input[0].name: clip[None]})[0][0] for clip in clips]
    return Material(clips, np.array(scores, np.float64), bonafide)


def find(
    calibrated: Calibrated,
    source: ModelProto,
    material: Material,
    stem: Path,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    *,
    force: bool = False,
) -> Found:
    """Searches, and writes measurements and answer beside ``stem``."""
    names, recipe = names_of(source), calibrated.recipe
    state = State(Path(f"{stem}.{recipe.name}.sensitivity.json"), key_of(calibrated, material), force)
    found = search(calibrated, source, material, state, limits)

    def row(point: Point) -> dict[str, object]:
        return {**asdict(point), "layers": [names[layer] for layer in point.layers]}

    answer = {
        "recipe": recipe.name,
        "most_time": limits.time,
        "most_kib": None if np.isinf(limits.kib) else limits.kib,
        "clips": len(material.clips),
        "chosen": row(found.chosen),
        "ranked": [{**row(point), "gain_per_ms": gain(point, found.none)} for point in found.ranked],
        "front": [row(point) for point in found.front],
    }
    target = Path(f"{stem}.{recipe.name}.front.json")
    write_whole(target, json.dumps(answer, indent=1) + "\n")
    return found


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    p = argparse.ArgumentParser(
        prog="sensitivity.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="an exported float32 .onnx")
    p.add_argument("--recipe", default="w8a8-rr", metavar="NAME", help="a static one (default w8a8-rr)")
    p.add_argument("--calibration", default=str(CLIPS), metavar="LIST", help="list of clips, or `all`")
    p.add_argument("--audio", type=Path, metavar="DIR", help="folder that the list's paths begin at")
    p.add_argument("--observer", choices=OBSERVERS, default="mse", help="how ranges are chosen (default mse)")
    p.add_argument("--protocol", type=Path, help="measure on this list's split, with EER")
    p.add_argument("--split", default="dev", help="of the protocol (default dev)")
    p.add_argument("--most-time", type=float, default=MOST_TIME, metavar="R", help=f"default {MOST_TIME}")
    p.add_argument("--most-kib", type=float, default=np.inf, metavar="KIB", help="default: any size")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (default: the model's)")
    p.add_argument("--force", action="store_true", help="forget what was measured before")
    args = p.parse_args(argv)
    recipe = parse_recipe(args.recipe)
    if recipe.activations != "static" or recipe.learned or recipe.mixed or recipe.searched:
        raise UserError("a search begins with a static recipe, such as w8a8, that leaves no layer in float")
    if args.protocol is not None and args.audio is None:
        raise UserError("--protocol needs --audio, the folder that its paths begin at")
    import onnx

    from runtimes import load

    samples = load(args.model).input.samples
    clips, _ = calibration_clips(args.calibration, args.audio, samples)
    source = onnx.load(args.model)
    folder = args.out or args.model.parent
    make_folder(folder)
    trials = None if args.protocol is None else (args.protocol, args.audio, args.split)
    found = find(
        calibrate(source, recipe, clips, args.observer),
        source,
        material_of(source, clips, trials),
        folder / args.model.stem,
        Limits(args.most_time, args.most_kib),
        force=args.force,
    )
    print(table(found, names_of(source)))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
