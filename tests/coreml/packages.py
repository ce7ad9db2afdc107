"""A small detector's package, and changes of it that its manifest vouches for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.manifest import describe_file, manifest_path
from runtimes.golden import golden_paths
from runtimes.ml_program.package import read_package
from runtimes.ml_program.program import Program
from runtimes.mlpackage import import_coremltools

PARITY_TOLERANCE = 1e-4  # see antispoof.formats
PUBLIC = ["AASIST.pth", "AASIST-L.pth"]
SMALL = ["--model", "aasist-l", "--checkpoint", "random", "--set", "clip_samples=16000"]
MODEL = Path("Data", "com.apple.CoreML", "model.mlmodel")
WEIGHTS = Path("Data", "com.apple.CoreML", "weights", "weight.bin")


def copy_of(package: Path, folder: Path) -> Path:
    """Copies a package with what lies beside it."""
    shutil.copytree(package, folder / package.name)
    for beside in (manifest_path(package), *golden_paths(package)):
        shutil.copy(beside, folder / beside.name)
    return folder / package.name


def vouch(package: Path) -> Path:
    """Makes the manifest an honest one of what was changed, so that only values can give it away."""
    facts = json.loads(manifest_path(package).read_text())
    facts["file"] = asdict(describe_file(package))
    manifest_path(package).write_text(json.dumps(facts))
    return package


def edit_program(package: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Changes operations, given by the names of what they compute."""
    import_coremltools()
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model.FromString((package / MODEL).read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    edit({op.outputs[0].name: op for op in block.operations})
    (package / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    return vouch(package)


def edit_weight(package: Path, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Changes the weight whose name ends so, in ``weight.bin`` alone."""
    program: Program = read_package(package)
    (constant,) = (op for op in program.operations if op.kind == "const" and op.outputs[0][0].endswith(name))
    stored = np.array(constant.arguments["val"])
    content = (package / WEIGHTS).read_bytes()
    assert content.count(stored.tobytes()) == 1
    changed = edit(stored).astype(stored.dtype)
    (package / WEIGHTS).write_bytes(content.replace(stored.tobytes(), changed.tobytes()))
    return vouch(package)
