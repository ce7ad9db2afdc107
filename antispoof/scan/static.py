"""Two passes over chunks of about sqrt(length) steps, for runtimes that have no loop.

Pass 1 runs all chunks side by side from rest, one step of every chunk at a time. The states at the
chunk ends then follow from ``length / chunk`` short steps, and pass 2 runs the chunks again from their
true start. Only mul, add, exp, matmul, slice and concat, no tensor above rank 5, and no exponent is
ever positive, so nothing overflows however large Delta * A grows.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch.nn.functional import pad


def static_scan(
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    reverse: bool,
    chunk: int | None = None,
) -> torch.Tensor:
    """Returns C . h, (batch, length, channels), for a length that is fixed when the graph is made.

    Args:
        x: (batch, length, channels).
        delta: step size after the softplus, like x.
        A: (channels, states).
        B: (batch, length, states).
        C: (batch, length, states).
        reverse: from the last step to the first; the chunks and their steps run backwards.
        chunk: steps per chunk; the square root of the length where not given.
    """
    batch, length, channels = x.shape
    states = A.shape[1]
    chunk = chunk or max(1, round(math.sqrt(length)))
    chunks = -(-length // chunk)
    # A step of size 0 leaves the state as it is, so the padding may stand on either side of time.
    short = chunks * chunk - length
    x, delta, B, C = (pad(v, (0, 0, 0, short)) if short else v for v in (x, delta, B, C))
    decay_rate = A.t()
    d = delta.reshape(batch, chunks, chunk, 1, channels)
    dx = (delta * x).reshape(batch, chunks, chunk, 1, channels)
    b = B.reshape(batch, chunks, chunk, states, 1)
    c = C.reshape(batch, chunks, chunk, 1, states)
    decay = [torch.exp(d[:, :, t] * decay_rate) for t in range(chunk)]
    drive = [b[:, :, t] * dx[:, :, t] for t in range(chunk)]
    steps = list(reversed(range(chunk))) if reverse else list(range(chunk))

    h = drive[steps[0]]
    for t in steps[1:]:
        h = decay[t] * h + drive[t]
    # The decay over a chunk in closed form is closer to the truth than a product of rounded decays.
    h = _chunk_starts(torch.exp(d.sum(2) * decay_rate), h, reverse)
    ys: list[torch.Tensor] = [x] * chunk
    for t in steps:
        h = decay[t] * h + drive[t]
        ys[t] = torch.matmul(c[:, :, t], h)
    y = torch.cat(ys, 2).reshape(batch, chunks * chunk, channels)
    return y[:, :length] if short else y


def _chunk_starts(decay: torch.Tensor, ends: torch.Tensor, reverse: bool) -> torch.Tensor:
    """Turns the states that each chunk reaches from rest into the true states that each starts from."""
    chunks = decay.shape[1]
    order = list(reversed(range(chunks))) if reverse else list(range(chunks))
    state = torch.zeros_like(ends[:, :1])
    starts: list[torch.Tensor] = [state] * chunks
    for before, k in pairwise(order):
        state = decay[:, before : before + 1] * state + ends[:, before : before + 1]
        starts[k] = state
    return torch.cat(starts, 1)
