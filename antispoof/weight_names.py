"""Whose weights these are: names mapped to a model's own, each one taken, dropped with a reason or refused.

Trainers put a network below a name of their own (``net.``, ``detector.``, DataParallel's ``module.``), and
other things beside it. Any prefix may be the one; it is where all of the model's names are and nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from antispoof.models import Detector

DEEPEST = 6  # parts of a name that may be a prefix
LISTED = 3  # names in a message
# What AveragedModel (EMA, SWA) keeps beside the weights.
COUNTERS = ("n_averaged",)
# The weights of classes in a loss, a metric's counts: at most a number for each class. What is larger may be
# what the score is made of, as is the centre of OC-Softmax.
BESIDE = re.compile(r"(^|[._])(criterion|loss(es)?|metrics?|acc(uracy)?|auroc|eer)[._]", re.IGNORECASE)
MOST_BESIDE = 2


@dataclass(frozen=True)
class Fit:
    """Weights under a model's own names.

    Attributes:
        tensors: By name, without what is no part of the network.
        problem: What keeps them from being exactly the model's, empty where nothing does.
        share: Of the names that either has, those that both have in one shape.
    """

    tensors: dict[str, Tensor]
    problem: str
    share: float


def fit(model: Detector, tensors: Mapping[str, Tensor]) -> Fit:
    """Returns how well weights fit a model, below the prefix where they fit best."""
    own = model.state_dict()
    tried = [(prefix, *_below(prefix, model, tensors)) for prefix in _prefixes(tensors, len(own))]
    whole = [prefix for prefix, inside, _ in tried if not _mismatch(own, inside)]
    if len(whole) > 1:
        named = ", ".join(f"{prefix}*" for prefix in whole)
        return Fit({}, f"holds several sets of its weights ({named}); save the one you mean", 1.0)
    fits = []
    for prefix, inside, others in tried:
        problem = _mismatch(own, inside, others)
        if problem and prefix:
            problem += f" (taking what is named {prefix}*)"
        fits.append(Fit(inside, problem, _share(own, inside, others)))
    return max(fits, key=lambda found: (not found.problem, found.share))


def map_names(model: Detector, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns ``tensors`` under the model's own names, without those that the model says are dead.

    Names that already are the model's own pass through unchanged.
    """
    own = model.state_dict()
    mapped = {}
    for name, value in tensors.items():
        if name not in own:
            if any(re.search(pattern, name) for pattern in model.dead_weights):
                continue
            for pattern, replacement in model.public_names:
                name = re.sub(pattern, replacement, name)
        mapped[name] = value
    return mapped


def _prefixes(tensors: Mapping[str, Tensor], wanted: int) -> list[str]:
    """Returns what may stand before a network's names, the shortest first: what enough of the names share."""
    counts = Counter(prefix for name in tensors for prefix in _beginnings(name))
    return ["", *(prefix for prefix, count in sorted(counts.items()) if 2 * count >= wanted)]


def _beginnings(name: str) -> Iterator[str]:
    end = 0
    for _ in range(DEEPEST):
        end = name.find(".", end) + 1
        if not end:
            return
        yield name[:end]


def _below(
    prefix: str, model: Detector, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the weights below a prefix by the model's names, and the others by theirs.

    What is plainly no part of a network is in neither. A loss's centre that the model has is in the first.
    """
    own = model.state_dict()
    inside = map_names(model, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    others = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
    for name in [name for name in others if BESIDE.search(name)]:
        for mapped, value in map_names(model, {name: others[name]}).items():
            if mapped in own and mapped not in inside:
                inside[mapped] = value
                del others[name]
    return (
        {name: value for name, value in inside.items() if name in own or not _is_beside(name, value)},
        {name: value for name, value in others.items() if not _is_beside(name, value)},
    )


def _is_beside(name: str, value: Tensor) -> bool:
    return name in COUNTERS or (value.numel() <= MOST_BESIDE and bool(BESIDE.search(name)))


def _share(own: Mapping[str, Tensor], inside: Mapping[str, Tensor], others: Collection[str]) -> float:
    same = sum(name in own and own[name].shape == value.shape for name, value in inside.items())
    return same / (len(own.keys() | inside.keys()) + len(others))


def _mismatch(own: Mapping[str, Tensor], inside: Mapping[str, Tensor], others: Collection[str] = ()) -> str:
    """Returns what keeps weights from being exactly a model's own, or ''."""
    lacking = [name for name in own if name not in inside]
    unknown = [*(name for name in inside if name not in own), *others]
    problems = [
        f"{problem} {', '.join(names[:LISTED])}"
        + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
        for problem, names in (("lacks", lacking), ("has the unknown", unknown))
        if names
    ]
    if problems:
        return "; it ".join(problems)
    for name, value in own.items():
        found = inside[name]
        if value.shape != found.shape:
            return f"has {name} of shape {tuple(found.shape)}, not {tuple(value.shape)}"
        if value.is_floating_point() and not found.is_floating_point():
            kind = str(found.dtype).removeprefix("torch.")
            return f"has {name} in {kind}, without the scale that integers need"
    return ""
