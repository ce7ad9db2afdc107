"""Silence for native libraries that write to stderr past Python and have no switch for it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from antispoof.errors import UserError

STDERR = 2  # its file descriptor in every process


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Keeps everything off stderr inside the ``with`` block, in the whole process.

    Where the block fails with anything but a `UserError`, which says enough, what was written comes
    out after all.
    """
    try:
        kept = os.dup(STDERR)
    except OSError:  # closed: nothing to silence
        yield
        return
    with tempfile.TemporaryFile() as written:
        sys.stderr.flush()
        os.dup2(written.fileno(), STDERR)
        wanted = True
        try:
            yield
            wanted = False
        except UserError:
            wanted = False
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, STDERR)
            os.close(kept)
            if wanted:
                written.seek(0)
                os.write(STDERR, written.read())
