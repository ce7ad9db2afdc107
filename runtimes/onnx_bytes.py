"""The bytes of an ONNX file with a manifest's facts inside."""

from __future__ import annotations

from typing import Any

from antispoof.manifest import FACTS_KEY


def embedded(model: Any, facts: str) -> bytes:
    """Returns the file's bytes with a manifest's facts inside, in the place of those that were there.

    Args:
        model: A ``ModelProto``, which is changed.
        facts: What `antispoof.manifest.Manifest.facts` returns.
    """
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = FACTS_KEY, facts
    content: bytes = model.SerializeToString(deterministic=True)
    return content
