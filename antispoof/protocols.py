"""Reads the lists that say which recordings are genuine: ASVspoof 2019, 2021 and 5, In-the-Wild, plain TSV.

    asvspoof2019     SPEAKER UTT ENVIRONMENT ATTACK KEY                             (LA and PA)
    asvspoof2021-la  SPEAKER UTT CODEC CHANNEL ATTACK KEY TRIM SPLIT
    asvspoof2021-df  SPEAKER UTT CODEC CORPUS ATTACK KEY TRIM SPLIT VOCODER and four more
    asvspoof5        SPEAKER UTT SEX CODEC QUALITY SEED ATTACK-TAG ATTACK KEY TMP   (Track 1)
    in-the-wild      CSV with the header file,speaker,label
    tsv              tab-separated with a header: path, label and, if wanted, attack, speaker, split

The layout is recognised from the first line, whatever the file is called. Labels are ``bonafide`` and
``spoof``; a row of a tsv labelled ``noise`` is no trial and is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from antispoof.errors import UserError
from antispoof.text_tables import header_columns, split_fields, text_lines

BONAFIDE = "bonafide"
SPOOF = "spoof"
NOISE = "noise"
UNKNOWN = "-"  # the field's mark for "not applicable"

LABELS = {"bonafide": BONAFIDE, "bona-fide": BONAFIDE, "spoof": SPOOF}
AUDIO_SUFFIXES = (".flac", ".wav")


@dataclass(frozen=True, slots=True)
class Trial:
    """One recording and what is known of it.

    Attributes:
        utterance: its id; for a list of files the file's name without folder and suffix.
        label: ``bonafide`` or ``spoof``.
        attack: which attack made it; ``-`` for bona fide speech and where the list does not say.
        speaker: ``-`` where the list does not say.
        split: the list's own part (``dev``, ``progress``, ...), ``-`` where it does not say.
        path: the file as the list gives it, where the list gives files.
    """

    utterance: str
    label: str
    attack: str = UNKNOWN
    speaker: str = UNKNOWN
    split: str = UNKNOWN
    path: str | None = None

    @property
    def name(self) -> str:
        """What the list calls the trial: its path if it gives one, else its id."""
        return self.utterance if self.path is None else self.path


@dataclass(frozen=True)
class Layout:
    """Where the columns of a protocol stand. ``delimiter`` None means any run of blanks."""

    format: str
    columns: int
    label: int
    name: int = 1
    speaker: int | None = 0
    attack: int | None = None
    split: int | None = None
    delimiter: str | None = None

    @property
    def lists_files(self) -> bool:
        """Whether the trials are named by file; only the lists with a header do so."""
        return self.delimiter is not None


_FIXED = {
    layout.format: layout
    for layout in (
        Layout("asvspoof2019", columns=5, attack=3, label=4),
        Layout("asvspoof2021-la", columns=8, attack=4, label=5, split=7),
        Layout("asvspoof2021-df", columns=13, attack=4, label=5, split=7),
        Layout("asvspoof5", columns=10, attack=7, label=8),
    )
}
_HEADED = {"in-the-wild": (",", "file"), "tsv": ("\t", "path")}
LAYOUTS = (*_FIXED, *_HEADED)


def _layout_of_header(line: str, format: str) -> Layout | None:
    """Returns the layout that a header line announces; None if it is no header of this format."""
    delimiter, name = _HEADED[format]
    names = split_fields(line, delimiter)
    if name not in names or "label" not in names:
        return None
    columns = header_columns(names)
    optional = {key: columns.get(key) for key in ("speaker", "attack", "split")}
    return Layout(format, len(names), columns["label"], columns[name], delimiter=delimiter, **optional)


def _layout_of_line(line: str, format: str) -> Layout | None:
    """Returns the layout of a format without header; None if the line is not of this format."""
    layout, fields = _FIXED[format], line.split()
    return layout if len(fields) == layout.columns and fields[layout.label] in LABELS else None


def _recognise(line: str, format: str | None) -> Layout:
    """Returns the layout of the list that begins with ``line``.

    Raises:
        ValueError: it is none of the known ones, or not the wanted one.
    """
    wanted = LAYOUTS if format is None else (format,)
    found = [
        layout
        for name in wanted
        if (layout := (_layout_of_header if name in _HEADED else _layout_of_line)(line, name))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(layout.format for layout in found)
        raise ValueError(f"this could be any of {names}; say which format it is")
    fields = line.split()
    if len(fields) == 4 and fields[2] in LABELS:
        raise ValueError("this is a score file (utt attack key score), not a protocol")
    if len(fields) == 1 and "," not in line:
        raise ValueError("this list names trials without labels; take its keys (2021: trial_metadata.txt)")
    raise ValueError(f"this line is not of the format {' or '.join(wanted)}")


def _trial(layout: Layout, line: str) -> Trial | None:
    """Returns the trial in a line, None for noise.

    Raises:
        ValueError: the line does not fit the layout.
    """
    fields = split_fields(line, layout.delimiter)
    if len(fields) != layout.columns:
        raise ValueError(f"{len(fields)} columns where {layout.format} has {layout.columns}")
    name, key = fields[layout.name], fields[layout.label]
    if not name:
        raise ValueError("the trial has no name")
    if key == NOISE and layout.lists_files:
        return None
    label = LABELS.get(key)
    if label is None:
        raise ValueError(f"the label {key!r} is neither bonafide nor spoof")

    def optional(column: int | None) -> str:
        return UNKNOWN if column is None else fields[column] or UNKNOWN

    return Trial(
        utterance=file_stem(name) if layout.lists_files else name,
        label=label,
        # The lists mark bona fide speech in different ways here: "-", "bonafide".
        attack=UNKNOWN if label == BONAFIDE else optional(layout.attack),
        speaker=optional(layout.speaker),
        split=optional(layout.split),
        path=name if layout.lists_files else None,
    )


def file_stem(name: str) -> str:
    """Returns a file's name without folder and suffix, whichever way its slashes lean."""
    file = name.replace("\\", "/").rpartition("/")[2]
    return file.rpartition(".")[0] or file or name


def iter_protocol(path: Path | str, format: str | None = None) -> Iterator[Trial]:
    """Yields the trials of a protocol one by one, in the order of the file.

    Raises:
        UserError: as ``read_protocol``.
    """
    path = Path(path)
    if format is not None and format not in LAYOUTS:
        raise UserError(f"no protocol format {format!r}; there are {', '.join(LAYOUTS)}")
    layout = None
    seen: set[str] = set()
    for number, line in text_lines(path):
        try:
            if layout is None:
                layout = _recognise(line, format)
                if layout.lists_files:
                    continue
            trial = _trial(layout, line)
            if trial is None:
                continue
            if trial.name in seen:
                raise ValueError(f"{trial.name} is listed a second time")
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from None
        seen.add(trial.name)
        yield trial
    if not seen:
        raise UserError(f"{path} lists no trial")


def read_protocol(path: Path | str, format: str | None = None, split: str | None = None) -> list[Trial]:
    """Returns the trials of a protocol, in the order of the file.

    Args:
        path: the protocol.
        format: one of ``LAYOUTS``; None recognises it from the first line.
        split: keeps only the trials of this part of the list.

    Raises:
        UserError: the file cannot be read, its format is unknown, a line does not fit it, a trial is
            listed twice, there is no trial, or none in ``split``.
    """
    trials = list(iter_protocol(path, format))
    if split is None:
        return trials
    chosen = [trial for trial in trials if trial.split == split]
    if not chosen:
        splits = sorted({trial.split for trial in trials} - {UNKNOWN})
        known = f"there are {', '.join(splits)}" if splits else "this list is not divided"
        raise UserError(f"{path} has no trial in the split {split!r}; {known}")
    return chosen


def resolve_audio(trial: Trial, folder: Path | str) -> Path:
    """Returns the file of a trial below ``folder``: the path as listed, or the id with .flac or .wav.

    Raises:
        UserError: there is no such file, or the list points outside the folder.
    """
    folder = Path(folder)
    for flavour in (PurePosixPath(trial.name), PureWindowsPath(trial.name)):
        # A list from elsewhere must not reach other files, on whichever system it is read.
        if flavour.anchor or ".." in flavour.parts:
            raise UserError(f"{trial.name!r} points outside the audio folder; use a path relative to it")
    names = (
        [trial.path] if trial.path is not None else [trial.utterance + suffix for suffix in AUDIO_SUFFIXES]
    )
    for name in names:
        file = folder / name
        try:
            if file.is_file():
                return file
        except OSError:  # a name that the file system cannot hold
            continue
    raise UserError(f"no audio for {trial.name} in {folder}: looked for {' and '.join(names)}")
