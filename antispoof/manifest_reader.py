"""Reads manifests, which are untrusted: they are checked field by field before anything is believed."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import UserError, one_line
from antispoof.manifest import (
    LENGTH_RULE,
    POLARITY,
    SCHEMA,
    Calibration,
    File,
    Input,
    Manifest,
    Output,
    Parity,
    Threshold,
    manifest_path,
)
from antispoof.signature import check_signature

MAX_BYTES = 1 << 20  # a manifest is a few KiB; a file of another size is not one
LARGEST = 2**63  # that no integer here comes near; Python's own have no end, and no float holds them
MAX_VERSION = 2**31 - 1  # what Java and JavaScript hold without a thought
MAX_LLR = 999_999.0  # a million, which the streaming core takes and no calibration nears, less a margin


def read_manifest(
    path: str | os.PathLike[str], trusted_key: str | os.PathLike[str] | None = None
) -> Manifest:
    """Reads and checks the manifest of a model file, without looking at the file itself.

    Args:
        path: The model file.
        trusted_key: A public key that must have signed the manifest, if any.

    Raises:
        UserError: It is missing, not a manifest, of another schema, or says what cannot be; or it is not
            signed by the trusted key.
    """
    sidecar = manifest_path(path)
    try:
        with sidecar.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no manifest beside it ({sidecar.name}); export the model again") from None
    except OSError as error:
        raise UserError(f"{sidecar}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{sidecar}: larger than {MAX_BYTES} bytes, not a manifest")
    if trusted_key is not None:
        check_signature(content, sidecar, Path(trusted_key))
    return parse_manifest(content, str(sidecar))


def parse_manifest(content: bytes, source: str) -> Manifest:
    """Returns the manifest in ``content``; ``source`` names it in errors.

    Raises:
        UserError: As `read_manifest`.
    """
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON ({one_line(error)[:80]})") from error
    if not isinstance(facts, dict):
        raise UserError(f"{source}: not a manifest, a JSON {type(facts).__name__}")
    if facts.get("schema") != SCHEMA:
        raise UserError(f"{source}: manifest schema {facts.get('schema')!r}; this version reads {SCHEMA}")
    reader = _Reader(source)
    manifest = reader.manifest(facts)
    reader.check(manifest)
    return manifest


def parse_decisions(content: str, source: str) -> tuple[Calibration | None, tuple[Threshold, ...]]:
    """Returns the calibration and the thresholds that a checkpoint says were fitted to its scores.

    Args:
        content: A JSON object with the manifest's fields ``calibration`` and ``thresholds``.
        source: Names it in errors.

    Raises:
        UserError: It is no such object.
    """
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON ({one_line(error)[:80]})") from error
    reader = _Reader(source)
    if not isinstance(facts, dict):
        raise reader.fail(f"thresholds are a JSON {type(facts).__name__}")
    calibration = reader.optional(facts, "calibration", reader.calibration)
    thresholds = tuple(reader.threshold(row) for row in reader.get(facts, "thresholds", list))
    if problem := what_cannot_decide(calibration, thresholds):
        raise reader.fail(problem)
    return calibration, thresholds


def what_cannot_decide(calibration: Calibration | None, thresholds: Sequence[Threshold]) -> str | None:
    """Returns why nothing can be decided by a calibration and these thresholds, if it cannot.

    The apps' readers say the same of the same numbers (tests/golden/bounds.json).
    """
    scale, offset = (calibration.scale, calibration.offset) if calibration else (1.0, 0.0)
    if scale <= 0:
        return "calibration.scale is not positive: it would turn the score's polarity round"
    ratios = [scale * point.score + offset for point in thresholds]
    if not all(abs(number) <= MAX_LLR for number in (scale, offset, *ratios)):
        return "its calibration or a threshold is beyond all bounds"
    return None


class _Reader:
    """Turns untrusted JSON into a `Manifest`, naming the field that is wrong."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, problem: str) -> UserError:
        return UserError(f"{self.source}: {problem}")

    def get(self, facts: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
        value = facts.get(key)
        if isinstance(value, bool) or not isinstance(value, kind):
            raise self.fail(f"{key!r} is {type(value).__name__}, not {_kind_name(kind)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.fail(f"{key!r} is not finite")
        if isinstance(value, int) and abs(value) >= LARGEST:
            raise self.fail(f"{key!r} has {len(str(abs(value)))} digits")
        return value

    def number(self, facts: Mapping[str, Any], key: str) -> float:
        return float(self.get(facts, key, (int, float)))

    def manifest(self, facts: Mapping[str, Any]) -> Manifest:
        text = {
            key: self.get(facts, key, str)
            for key in ("model", "weights_sha256", "weights", "format", "precision", "recipe", "licence")
        }
        return Manifest(
            **text,
            config=self.get(facts, "config", dict),
            tools={str(k): str(v) for k, v in self.get(facts, "tools", dict).items()},
            input=self.input(self.get(facts, "input", dict)),
            output=self.output(self.get(facts, "output", dict)),
            calibration=self.optional(facts, "calibration", self.calibration),
            thresholds=tuple(self.threshold(row) for row in self.get(facts, "thresholds", list)),
            parity=self.optional(facts, "parity", self.parity),
            file=self.optional(facts, "file", self.file),
            # Manifests of before there were signatures have neither.
            model_version=self.get(facts, "model_version", int) if "model_version" in facts else 0,
            golden_sha256=self.optional(facts, "golden_sha256", str, str),
        )

    def optional(self, facts: Mapping[str, Any], key: str, read: Any, kind: type = dict) -> Any:
        return None if facts.get(key) is None else read(self.get(facts, key, kind))

    def input(self, facts: Mapping[str, Any]) -> Input:
        batch = None if facts.get("batch") is None else self.get(facts, "batch", int)
        text = {key: self.get(facts, key, str) for key in ("name", "dtype", "length_rule")}
        integers = {key: self.get(facts, key, int) for key in ("samples", "sample_rate")}
        return Input(batch=batch, **text, **integers)

    def output(self, facts: Mapping[str, Any]) -> Output:
        labels = self.get(facts, "labels", list)
        text = {key: self.get(facts, key, str) for key in ("name", "dtype", "polarity")}
        return Output(labels=tuple(labels), **text)

    def calibration(self, facts: Mapping[str, Any]) -> Calibration:
        return Calibration(
            self.number(facts, "scale"), self.number(facts, "offset"), self.get(facts, "data", str)
        )

    def threshold(self, facts: Any) -> Threshold:
        if not isinstance(facts, dict):
            raise self.fail("'thresholds' holds something that is no object")
        return Threshold(
            self.get(facts, "name", str), self.number(facts, "score"), self.get(facts, "data", str)
        )

    def parity(self, facts: Mapping[str, Any]) -> Parity:
        return Parity(
            self.get(facts, "reference", str),
            self.get(facts, "clips", int),
            self.get(facts, "audio", str),
            self.number(facts, "max_difference"),
            self.number(facts, "tolerance"),
        )

    def file(self, facts: Mapping[str, Any]) -> File:
        return File(
            self.get(facts, "name", str), self.get(facts, "bytes", int), self.get(facts, "sha256", str)
        )

    def check(self, manifest: Manifest) -> None:
        """Refuses what this version cannot honour: another rate, rule, type or polarity."""
        expected = {
            "input.sample_rate": (manifest.input.sample_rate, SAMPLE_RATE),
            "input.dtype": (manifest.input.dtype, "float32"),
            "input.length_rule": (manifest.input.length_rule, LENGTH_RULE),
            "output.dtype": (manifest.output.dtype, "float32"),
            "output.polarity": (manifest.output.polarity, POLARITY),
            "output.labels": (manifest.output.labels, ("spoof", "bonafide")),
        }
        for name, (found, wanted) in expected.items():
            if found != wanted:
                raise self.fail(f"{name} is {found!r}; only {wanted!r} is supported")
        if not 0 < manifest.input.samples <= 3600 * SAMPLE_RATE:
            raise self.fail(f"input.samples is {manifest.input.samples}")
        if manifest.input.batch is not None and manifest.input.batch < 1:
            raise self.fail(f"input.batch is {manifest.input.batch}")
        if problem := what_cannot_decide(manifest.calibration, manifest.thresholds):
            raise self.fail(problem)
        if not 0 <= manifest.model_version <= MAX_VERSION:
            raise self.fail(f"model_version is {manifest.model_version}")
        if manifest.golden_sha256 is not None and not re.fullmatch("[0-9a-f]{64}", manifest.golden_sha256):
            raise self.fail("golden_sha256 is no sha256")


def _kind_name(kind: type | tuple[type, ...]) -> str:
    names = {dict: "an object", list: "a list", str: "a string", int: "an integer"}
    return "a number" if isinstance(kind, tuple) else names[kind]
