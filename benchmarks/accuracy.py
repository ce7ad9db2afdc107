"""Measures a score file: EER with its interval, minDCF, t-DCF, actDCF, Cllr, decisions, EER of each attack.

    python benchmarks/accuracy.py scores.tsv --protocol manifest.tsv --split dev
    python benchmarks/accuracy.py eval.scores.txt --asv-scores ASVspoof2019.LA.asv.eval.gi.trl.scores.txt

SCORES is a tab-separated file with the columns path and score (llr and decision if present), which needs
--protocol, or the field's `utt attack key score`, which holds its own labels. A row is matched to the
protocol by its path or by its utterance id, the file's name without suffix. A higher score means bona fide.

actDCF and Cllr judge log-likelihood ratios: they are given for a column llr, or with --scores-are-llr. What
the decisions got wrong (bona fide speech refused, spoofs passed) is given for a column decision.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import antispoof
from antispoof.bootstrap import DRAWS, eer_interval
from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.metrics import (
    ASVSPOOF5_COST,
    actual_dcf,
    cllr,
    det_curve,
    det_points,
    eer_by_attack,
    equal_error_rate,
    error_rates,
    min_dcf,
    tied_share,
)
from antispoof.outputs import refuse_existing
from antispoof.protocols import LAYOUTS, UNKNOWN, read_protocol
from antispoof.score_files import ScoredTrials, few, match_scores, read_scores
from antispoof.tdcf import ASVSPOOF2019_COST, asv_errors, min_tdcf, read_asv_scores
from benchmarks.results_file import gather_conditions, write_results

MANY_TIES = 0.01  # share of trials; above it the EER is partly rounding
DET_POINTS = 100
SHORT_S = 2.0  # work that is done sooner shows no progress
KIND = "accuracy"


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("scores", type=Path, metavar="SCORES", help="the score file")
    p.add_argument("--protocol", type=Path, help="the list of trials with their labels")
    p.add_argument("--protocol-format", choices=LAYOUTS, help="default: recognised from its first line")
    p.add_argument("--split", help="measure only this split of the protocol")
    p.add_argument("--asv-scores", type=Path, help="speaker-verification scores, for the min t-DCF")
    p.add_argument("--scores-are-llr", action="store_true", help="the scores are log-likelihood ratios")
    p.add_argument("--allow-missing", action="store_true", help="measure even if trials have no score")
    p.add_argument("--bootstrap", type=int, default=DRAWS, metavar="N", help="draws; 0: no interval")
    p.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    return p


def load(
    scores: Path,
    protocol: Path | None,
    *,
    protocol_format: str | None = None,
    split: str | None = None,
    allow_missing: bool = False,
) -> ScoredTrials:
    """Returns the labelled scores of a score file, and says on stderr what did not match.

    Raises:
        UserError: there are no labels, or a trial has no score and ``allow_missing`` is off.
    """
    scored = read_scores(scores)
    if protocol is None:
        if scored.trials is None:
            raise UserError(f"{scores} holds no labels; name the list that does with --protocol")
        if split is not None:
            raise UserError("--split chooses from a protocol; name it with --protocol")
        return ScoredTrials(scored.trials, scored.scores, scored.llrs, scored.accepted)
    matched = match_scores(scored, read_protocol(protocol, protocol_format, split))
    if matched.unlisted:
        print(f"scored but not among the trials: {few(matched.unlisted)}", file=sys.stderr)
    if matched.unscored:
        missing = f"in the protocol but not scored: {few(matched.unscored)}"
        if not allow_missing:
            raise UserError(f"{missing}; score them, or pass --allow-missing")
        print(missing, file=sys.stderr)
    return matched


def measure(
    scored: ScoredTrials,
    *,
    asv: dict[str, np.ndarray] | None = None,
    scores_are_llr: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns every figure by name, ready for JSON. Rates are fractions.

    Args:
        scored: scores with their labels.
        asv: verification scores of the keys target, nontarget and spoof, for the min t-DCF.
        scores_are_llr: takes the scores for log-likelihood ratios where there is no column of them.
        draws: bootstrap draws; 0 leaves the interval out.
        seed: of the bootstrap.

    Raises:
        UserError: a class is missing, or the scores look inverted.
    """
    genuine = scored.is_bonafide
    bonafide, spoof = scored.scores[genuine], scored.scores[~genuine]
    figures: dict[str, Any] = {
        "trials": {"bonafide": bonafide.size, "spoof": spoof.size},
        "unscored": len(scored.unscored),
        "unlisted": len(scored.unlisted),
        "eer": asdict(equal_error_rate(bonafide, spoof)),
        "tied_share": tied_share(bonafide, spoof),
        "min_dcf": asdict(min_dcf(bonafide, spoof)) | {"cost": asdict(ASVSPOOF5_COST)},
    }
    if draws:
        watch = partial(
            tqdm, desc="bootstrap", unit="draw", total=draws, delay=SHORT_S, leave=False, disable=None
        )
        figures["eer_interval"] = asdict(eer_interval(bonafide, spoof, draws=draws, seed=seed, watch=watch))
    if asv is not None:
        errors = asv_errors(asv["target"], asv["nontarget"], asv["spoof"])
        figures["min_tdcf"] = asdict(min_tdcf(bonafide, spoof, errors)) | {
            "asv": asdict(errors),
            "cost": asdict(ASVSPOOF2019_COST),
        }
    llrs = scored.scores if scored.llrs is None and scores_are_llr else scored.llrs
    if llrs is not None:
        figures["act_dcf"] = asdict(actual_dcf(llrs[genuine], llrs[~genuine]))
        figures["cllr"] = cllr(llrs[genuine], llrs[~genuine])
    if scored.accepted is not None:
        accepted = scored.accepted.astype(np.float64)
        figures["decided"] = asdict(error_rates(accepted[genuine], accepted[~genuine], 1))
    attacks = [trial.attack for trial in scored.trials]
    figures["attacks"] = [asdict(row) for row in eer_by_attack(scored.scores, genuine, attacks)]
    false_alarm, miss = det_points(det_curve(bonafide, spoof), DET_POINTS)
    figures["det"] = {"false_alarm": false_alarm.tolist(), "miss": miss.tolist()}
    return figures


def table(figures: dict[str, Any]) -> str:
    """Returns the figures as a short table."""
    counts, eer = figures["trials"], figures["eer"]
    total = counts["bonafide"] + counts["spoof"]
    rows = [
        ("trials", f"{total:,} ({counts['bonafide']:,} bona fide, {counts['spoof']:,} spoof)"),
        ("EER", f"{eer['value']:.9%}"),
        ("threshold", f"{eer['threshold']:.6g}"),
        ("minDCF", f"{figures['min_dcf']['value']:.6f}"),
    ]
    if interval := figures.get("eer_interval"):
        text = f"{interval['low']:.3%} to {interval['high']:.3%} ({interval['draws']:,} draws)"
        rows.insert(2, (f"  {interval['level']:.0%} interval", text))
    if "min_tdcf" in figures:
        rows.append(("min t-DCF", f"{figures['min_tdcf']['value']:.9f}"))
    if "act_dcf" in figures:
        rows.append(("actDCF", f"{figures['act_dcf']['value']:.6f}"))
        rows.append(("Cllr", f"{figures['cllr']:.6f} bits"))
    if decided := figures.get("decided"):
        rows.append(("refused", f"{decided['miss']:.3%} of the bona fide trials"))
        rows.append(("passed", f"{decided['false_alarm']:.3%} of the spoofs"))
    lines = [f"{name:<16} {value}" for name, value in rows]
    attacks = figures["attacks"]
    if [row["attack"] for row in attacks] != [UNKNOWN]:
        width = max(16, *(len(row["attack"]) for row in attacks))
        lines += ["", f"{'attack':<{width}} {'trials':>9} {'EER':>14}"]
        lines += [f"{row['attack']:<{width}} {row['trials']:>9,} {row['value']:>14.9%}" for row in attacks]
    return "\n".join(lines)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    if args.bootstrap < 0 or args.seed < 0:
        raise UserError("--bootstrap and --seed cannot be negative")
    if args.json:
        refuse_existing(args.json, args.force)
    scored = load(
        args.scores,
        args.protocol,
        protocol_format=args.protocol_format,
        split=args.split,
        allow_missing=args.allow_missing,
    )
    asv = read_asv_scores(args.asv_scores) if args.asv_scores else None
    figures = measure(
        scored, asv=asv, scores_are_llr=args.scores_are_llr, draws=args.bootstrap, seed=args.seed
    )
    if figures["tied_share"] > MANY_TIES:
        share = figures["tied_share"]
        print(f"{share:.1%} of the trials are tied with the other class, an error each", file=sys.stderr)
    if args.json:
        inputs = {"scores": args.scores, "protocol": args.protocol, "asv_scores": args.asv_scores}
        given = {
            "inputs": {
                role: {"name": path.name, "sha256": sha256(path)} for role, path in inputs.items() if path
            },
            "split": args.split,
            "scores_are_llr": args.scores_are_llr,
            "seed": args.seed,
            "versions": {"antispoof": antispoof.__version__, "numpy": np.__version__},
        }
        # The figures stand beside the rows, which are the EERs alone, of all attacks together first.
        rows = [{"attack": "all", "trials": len(scored.trials), **figures["eer"]}, *figures["attacks"]]
        write_results(args.json, KIND, gather_conditions(), rows, args.force, **given, **figures)
    print(table(figures))  # last: whoever reads it may close the pipe
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
