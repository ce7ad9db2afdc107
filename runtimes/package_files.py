"""Writes ``.mlpackage`` folders: the same program always gives the same bytes.

Not by coremltools' own ``save``: that draws new identifiers each time and adds the traceback of every
operation, paths of this machine included.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import antispoof
from antispoof.manifest import FACTS_KEY, LENGTH_RULE, POLARITY, Manifest

MODEL_FILE = "com.apple.CoreML/model.mlmodel"
WEIGHTS_FOLDER = "com.apple.CoreML/weights"


def write_package(model: Any, manifest: Manifest, path: Path) -> None:
    """Writes coremltools' model as a package, with the manifest's facts inside."""
    spec = model.get_spec()
    _describe(spec, manifest)
    write_files(spec, Path(model.weights_dir), path)


def write_files(spec: Any, weights_folder: Path, path: Path) -> None:
    """Writes a specification and the folder of its weights as a package."""
    data = path / "Data"
    model_file = data / MODEL_FILE
    model_file.parent.mkdir(parents=True)
    content = spec.SerializeToString(deterministic=True)
    model_file.write_bytes(content)
    weights = data / WEIGHTS_FOLDER
    weights.mkdir()
    for file in sorted(weights_folder.iterdir()):
        shutil.copyfile(file, weights / file.name)
    (path / "Manifest.json").write_text(package_manifest(content), encoding="utf-8")


def _describe(spec: Any, manifest: Manifest) -> None:
    """Fills in what Xcode shows of a model, and what our runtimes read."""
    seconds = manifest.input.samples / manifest.input.sample_rate
    described = spec.description
    described.input[0].shortDescription = (
        f"{seconds:g} s of speech, {manifest.input.samples} float32 samples from -1 to 1 at "
        f"{manifest.input.sample_rate} Hz, one channel; {LENGTH_RULE}"
    )
    described.output[0].shortDescription = f"detection score of the clip; {POLARITY}"
    metadata = described.metadata
    metadata.shortDescription = f"{manifest.model}: is this speech genuine or synthetic?"
    metadata.author = f"antispoof {antispoof.__version__}; weights: {manifest.weights}"
    metadata.license = manifest.licence
    metadata.versionString = antispoof.__version__
    metadata.userDefined[FACTS_KEY] = manifest.facts()


def package_manifest(content: bytes) -> str:
    """Returns the package's own manifest; its identifiers follow from the content."""
    digest = hashlib.sha256(content).hexdigest()
    entries = {
        str(uuid.uuid5(uuid.NAMESPACE_OID, f"{digest}/{place}")): {
            "author": "com.apple.CoreML",
            "description": description,
            "name": place.rpartition("/")[2],
            "path": place,
        }
        for place, description in (
            (MODEL_FILE, "CoreML Model Specification"),
            (WEIGHTS_FOLDER, "CoreML Model Weights"),
        )
    }
    root = next(iter(entries))
    whole = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": root}
    # Sorted and spaced as Apple's reader rewrites the file when it opens one, so that its sha256 stays.
    return json.dumps(whole, indent=4, sort_keys=True) + "\n"
