"""Reads a detector's score files and finds the trial that each score belongs to.

    path <tab> score              with a header, and columns llr and decision if wanted; also filename and
                                  cm-score, the names of ASVspoof 5
    utt attack key score          no header: ASVspoof 2019, labels included
    utt score                     no header: ASVspoof 2021

The layout is recognised from the first line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antispoof.errors import UserError
from antispoof.protocols import BONAFIDE, LABELS, UNKNOWN, Trial, file_stem
from antispoof.text_tables import finite_number, header_columns, split_fields, text_lines

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

SHOWN = 3  # names quoted in a message


@dataclass(frozen=True)
class ScoreFile:
    """The rows of a score file.

    Attributes:
        path: the file.
        names: what each row calls its trial.
        scores: (rows,), higher is more likely bona fide.
        llrs: (rows,) log-likelihood ratios, natural logarithm, if the file has them.
        accepted: (rows,) what was decided: True for bona fide; if the file has a column of
            decisions in these words, bonafide and spoof.
        trials: the labelled trials, if the file has labels.
    """

    path: Path
    names: list[str]
    scores: Floats
    llrs: Floats | None
    accepted: Booleans | None
    trials: list[Trial] | None


@dataclass(frozen=True)
class ScoredTrials:
    """Trials with their scores.

    Attributes:
        trials: those that have a score.
        scores: (trials,).
        llrs: (trials,) or None.
        accepted: (trials,) which were decided to be bona fide, or None.
        unscored: names of the protocol's trials without a score.
        unlisted: names in the score file that are no trial of the protocol.
    """

    trials: list[Trial]
    scores: Floats
    llrs: Floats | None
    accepted: Booleans | None = None
    unscored: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()

    @property
    def is_bonafide(self) -> Booleans:
        """Which trials are genuine, (trials,)."""
        return np.array([trial.label == BONAFIDE for trial in self.trials], dtype=bool)


@dataclass(frozen=True)
class _Columns:
    """Where the columns of a score file stand."""

    count: int
    score: int
    name: int = 0
    llr: int | None = None
    decision: int | None = None
    attack: int | None = None
    key: int | None = None
    delimiter: str | None = None


def _columns(line: str) -> _Columns:
    """Returns the columns of the score file that begins with ``line``."""
    if "\t" in line:
        names = split_fields(line, "\t")
        name = next((n for n in ("path", "filename") if n in names), None)
        score = next((n for n in ("score", "cm-score") if n in names), None)
        if name and score:
            at = header_columns(names)
            extra = {column: at.get(column) for column in ("llr", "decision")}
            return _Columns(len(names), at[score], at[name], **extra, delimiter="\t")
    fields = line.split()
    if len(fields) == 4 and fields[2] in LABELS:
        return _Columns(4, score=3, attack=1, key=2)
    if len(fields) == 2:
        return _Columns(2, score=1)
    raise ValueError(
        "this is no score file: it begins neither with a tab-separated header (path, score) "
        "nor with a line 'utt attack key score' or 'utt score'"
    )


def read_scores(path: Path | str) -> ScoreFile:
    """Returns the rows of a detector's score file; its layout is recognised from the first line.

    Raises:
        UserError: the file cannot be read, is no score file, has no row, names a trial twice, has a
            score that is not a finite number, or decides about some trials only.
    """
    path = Path(path)
    columns = None
    rows: dict[str, tuple[float, float, str]] = {}
    trials: list[Trial] = []
    for number, line in text_lines(path):
        try:
            if columns is None:
                columns = _columns(line)
                if columns.delimiter:
                    continue
            fields = split_fields(line, columns.delimiter)
            if len(fields) != columns.count:
                raise ValueError(f"{len(fields)} columns where the first line has {columns.count}")
            name = fields[columns.name]
            if not name or name in rows:
                raise ValueError(f"{name} is scored a second time" if name else "the trial has no name")
            llr = math.nan if columns.llr is None else finite_number(fields[columns.llr])
            decision = "" if columns.decision is None else fields[columns.decision]
            rows[name] = (finite_number(fields[columns.score]), llr, decision)
            if columns.key is not None and columns.attack is not None:
                trials.append(_labelled(name, fields[columns.attack], fields[columns.key]))
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from None
    if columns is None or not rows:
        raise UserError(f"{path} holds no score")
    table = np.array([numbers for *numbers, _ in rows.values()], dtype=np.float64)
    llrs = None if columns.llr is None else table[:, 1]
    decisions = {name: LABELS.get(decision) for name, (*_, decision) in rows.items()}
    undecided = [name for name, decision in decisions.items() if decision is None]
    if 0 < len(undecided) < len(decisions):
        raise UserError(f"{path} decides (bonafide or spoof) about some trials, not about {few(undecided)}")
    accepted = None if undecided else np.array(list(decisions.values())) == BONAFIDE
    return ScoreFile(path, list(rows), table[:, 0], llrs, accepted, trials or None)


def _labelled(name: str, attack: str, key: str) -> Trial:
    if key not in LABELS:
        raise ValueError(f"the key {key!r} is neither bonafide nor spoof")
    label = LABELS[key]
    return Trial(name, label, attack=UNKNOWN if label == BONAFIDE else attack)


class _Finder:
    """Finds the trial that a score file means by a name: a path or an id."""

    def __init__(self, protocol: Sequence[Trial]) -> None:
        self.protocol = protocol
        self.by_name = {_slashed(trial.name): index for index, trial in enumerate(protocol)}
        self.by_id: dict[str, int] = {}
        self.shared_ids: set[str] = set()
        for index, trial in enumerate(protocol):
            if self.by_id.setdefault(trial.utterance, index) != index:
                self.shared_ids.add(trial.utterance)

    def index(self, name: str) -> int | None:
        """Returns the place of the trial in the protocol, None if it is not there."""
        parts = _slashed(name).split("/")
        for first in range(len(parts)):  # the scored path may begin further up
            found = self.by_name.get("/".join(parts[first:]))
            if found is not None:
                return found
        identity = name if name in self.by_id else file_stem(name)
        found = self.by_id.get(identity)
        if found is None or (len(parts) > 1 and "/" in _slashed(self.protocol[found].name)):
            return None  # where both sides give folders, a shared file name is chance
        if identity in self.shared_ids:
            raise UserError(
                f"the protocol has several files called {identity!r}, so {name!r} could be any of "
                "them; write the paths into the score file as they stand in the protocol"
            )
        return found


def _slashed(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")


def match_scores(scored: ScoreFile, protocol: Sequence[Trial]) -> ScoredTrials:
    """Returns the protocol's trials that have a score, in the order of the protocol.

    Raises:
        UserError: nothing matches, two rows mean one trial, a name is ambiguous, or the labels in the
            score file contradict the protocol.
    """
    finder = _Finder(protocol)
    row_of: dict[int, int] = {}
    unlisted = []
    for row, name in enumerate(scored.names):
        index = finder.index(name)
        if index is None:
            unlisted.append(name)
        elif index in row_of:
            other = scored.names[row_of[index]]
            raise UserError(f"{scored.path} scores {protocol[index].name} twice: as {other} and as {name}")
        else:
            row_of[index] = row
    if not row_of:
        raise UserError(
            f"no name in {scored.path} is in the protocol: the scores call a trial "
            f"{scored.names[0]!r}, the protocol {protocol[0].name!r}"
        )
    _refuse_other_labels(scored, protocol, row_of)
    kept = sorted(row_of)
    rows = [row_of[index] for index in kept]
    return ScoredTrials(
        trials=[protocol[index] for index in kept],
        scores=scored.scores[rows],
        llrs=None if scored.llrs is None else scored.llrs[rows],
        accepted=None if scored.accepted is None else scored.accepted[rows],
        unscored=tuple(trial.name for index, trial in enumerate(protocol) if index not in row_of),
        unlisted=tuple(unlisted),
    )


def _refuse_other_labels(scored: ScoreFile, protocol: Sequence[Trial], row_of: dict[int, int]) -> None:
    if scored.trials is None:
        return
    other = [scored.names[row] for i, row in row_of.items() if scored.trials[row].label != protocol[i].label]
    if other:
        raise UserError(f"{scored.path} and the protocol label {few(other)} differently")


def few(names: Sequence[str]) -> str:
    """Returns a count and the first few names, for a message."""
    shown = ", ".join(names[:SHOWN])
    return f"{len(names):,} trials ({shown}{', ...' if len(names) > SHOWN else ''})"
