"""The saved states of a run, of which the last few are kept."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from antispoof.errors import UserError
from train.mapping import build
from train.recipe import Recipe

STATES_KEPT = 5


def saved_states(folder: Path) -> list[Path]:
    """Returns the states in a folder, the oldest first."""
    return sorted(folder.glob("state-????????.pt"))


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes a state under the number of its step, whole or not at all, and drops the oldest ones.

    Raises:
        UserError: It cannot be written.
    """
    path = folder / f"state-{state['step']:08d}.pt"
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:  # of a path, torch does not say what went wrong
            torch.save(state, file)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch's own complaint about a file hides the system's.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise UserError(f"cannot write {path}: {cause.strerror or cause}") from error
    finally:
        partial.unlink(missing_ok=True)
    for old in saved_states(folder)[:-STATES_KEPT]:
        old.unlink()


def newest_state(folder: Path, device: torch.device) -> dict[str, Any]:
    """Returns the newest state of a folder that can be read; any leads to the same weights.

    Raises:
        UserError: There is none.
    """
    for path in reversed(saved_states(folder)):
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
        except (RuntimeError, EOFError, pickle.UnpicklingError):  # cut short by a crash of the system
            print(f"{path} is damaged; trying the state before it", file=sys.stderr)
            continue
        state["identity"]["recipe"] = _in_full(state["identity"]["recipe"])
        return state
    raise UserError(f"{folder} holds no state to resume from that can be read")


def check_same(folder: Path, saved: dict[str, Any], identity: dict[str, Any]) -> None:
    """Refuses to go on with another recipe or under other conditions than those of a saved state.

    Raises:
        UserError: They differ.
    """
    if saved != identity:
        raise UserError(
            f"the run in {folder} was trained with other {_first_difference(saved, identity)}; "
            "resume with the same recipe, steps, seed, threads and recordings"
        )


def _in_full(recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns a saved recipe with the keys that came into being after it, at what they default to."""
    try:
        return dataclasses.asdict(build(Recipe, recipe))
    except ValueError:  # of a later version: it differs, and where is for the comparison to say
        return recipe


def _first_difference(one: Any, other: Any, where: str = "") -> str:
    """Returns the dotted name of the first key in which two nested mappings differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        missing = object()
        key = next(key for key in keys if one.get(key, missing) != other.get(key, missing))
        return _first_difference(one.get(key), other.get(key), f"{where}.{key}" if where else str(key))
    return where
