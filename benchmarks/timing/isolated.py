"""Runs a function in a process of its own: a library that crashes or hangs becomes a sentence."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from antispoof.errors import UserError, one_line

ENDING_SECONDS = 10.0  # that a process which has answered may take to end by itself
LONGEST_REASON = 300  # characters; libraries quote whole graphs


class StepFailed(Exception):
    """The function did not return; the message says why."""


def isolated(function: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
    """Returns ``function(*arguments)``, computed by a fresh process whose output goes to stderr.

    Args:
        function: A function of a module, not a lambda: its name is what travels.
        *arguments: Picklable.
        seconds: After which the process is ended.

    Raises:
        StepFailed: It raised, crashed or took too long.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            raise StepFailed(f"no result within {seconds:g} s")
        done, value = ours.recv()
        process.join(ENDING_SECONDS)
    except EOFError:
        process.join()
        raise StepFailed(_end_of(process.exitcode or 0)) from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if not done:
        raise StepFailed(value)
    return value


def _end_of(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    return f"its process was ended by {signal.Signals(-code).name}"


def _answer(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.dup2(2, 1)  # libraries print; results of a command are for its stdout alone
    try:
        pipe.send((True, function(*arguments)))
    except UserError as error:
        pipe.send((False, one_line(error)))
    except Exception as error:  # whatever a library raises is the result
        pipe.send((False, f"{type(error).__name__}: {one_line(error)}"[:LONGEST_REASON]))
