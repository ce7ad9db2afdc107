"""The bytes of a TFLite file as objects, and back: the same objects always give the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from antispoof.manifest import FACTS_KEY

FILE_IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # bytes, of every constant, as the format's schema asks


def schema() -> Any:
    """Returns the format's classes."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def unpacked(content: bytes) -> Any:
    """Returns a file's content as a ``ModelT``. It must be one that LiteRT has verified."""
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAsModel(bytearray(content), 0))
    for buffer in model.buffers:
        # Some writers put constants behind the rest of the file.
        if buffer.data is None and buffer.size > 0:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def embedded(model: Any, facts: str) -> bytes:
    """Returns the file's bytes with a manifest's facts inside, in the place of those that were there.

    Args:
        model: A ``ModelT``, which is changed.
        facts: What `antispoof.manifest.Manifest.facts` returns.
    """
    classes = schema()
    known = next((x for x in model.metadata or [] if x.name.decode() == FACTS_KEY), None)
    if known is None:
        known, model.metadata = classes.MetadataT(), [*(model.metadata or [])]
        known.name, known.buffer = FACTS_KEY.encode(), len(model.buffers)
        model.metadata.append(known)
        model.buffers.append(classes.BufferT())
    model.buffers[known.buffer].data = np.frombuffer(facts.encode(), np.uint8)
    return packed(model)


def packed(model: Any) -> bytes:
    """Returns the bytes of a ``ModelT``, constants aligned and vectors of equal content stored once."""
    import flatbuffers

    classes = schema()

    class Builder(flatbuffers.Builder):
        shared: dict[tuple[str, bytes], int]

        def CreateNumpyVector(self, x: np.ndarray) -> int:
            content = (x.dtype.str, x.tobytes())
            if content not in self.shared:
                self.shared[content] = super().CreateNumpyVector(x)
            return self.shared[content]

    class Constant(classes.BufferT):  # type: ignore[name-defined]
        # The schema's own Python code forgets the alignment that the schema asks for.
        def Pack(self, builder: Any) -> int:
            content = b"" if self.data is None else bytes(self.data)
            builder.StartVector(1, len(content), ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            data = builder.EndVector()
            classes.BufferStart(builder)
            if content:
                classes.BufferAddData(builder, data)
            return classes.BufferEnd(builder)

    for buffer in model.buffers:
        buffer.__class__ = Constant
    builder = Builder(1 << 20)
    builder.shared = {}
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())
