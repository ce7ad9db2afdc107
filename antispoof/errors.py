"""How a command fails: a user's mistake is one line and exit 2, a bug is a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_DONE = 0
EXIT_CHECK_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shell's convention
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """Something the user can mend: a wrong path, a damaged file, arguments that do not fit.

    The message is one line that says what is wrong and, where it helps, what to do next.
    """


class CheckFailed(Exception):
    """A gate said no: parity, accuracy or a budget. The message says which and by how much."""


def one_line(text: object) -> str:
    """Returns ``text`` folded into a single line, for messages that quote another library."""
    return " ".join(str(text).split())


def run(main: Callable[[], int]) -> NoReturn:
    """Runs a command's ``main`` and exits with its code.

    ``UserError``, and a disk that is full, end in ``error: ...`` on stderr and exit 2, ``CheckFailed`` in
    exit 1 and an interrupt in exit 130. Any other exception is a bug and keeps its traceback.
    """
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except CheckFailed as error:
        print(f"failed: {one_line(error)}", file=sys.stderr)
        code = EXIT_CHECK_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader (`| head`) went away
        _drop_stdout()
        code = EXIT_DONE
    except OSError as error:
        if error.errno not in FULL:
            raise
        _drop_stdout()
        print(f"error: {error.filename or 'what was to be written'}: {error.strerror}", file=sys.stderr)
        code = EXIT_USER_ERROR
    raise SystemExit(code)


def _drop_stdout() -> None:
    """Points stdout elsewhere, so that the interpreter's last flush does not raise the same error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
