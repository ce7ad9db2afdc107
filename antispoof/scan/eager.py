"""The form for training and for PyTorch inference: one fused operation per step, short of memory.

Autograd through a plain loop keeps every decay and every state, two tensors of (batch, length, states,
channels). Here the forward pass keeps only the state before each chunk; the backward pass computes one
chunk at a time anew, so that its working set stays in the cache as well.
"""

from __future__ import annotations

from typing import Any

import torch

CHUNK = 8  # steps; at 256 channels and 16 states the decays of a chunk are 128 KiB


def eager_scan(
    x: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, reverse: bool
) -> torch.Tensor:
    """Returns C . h, (batch, length, channels), with first derivatives for all inputs."""

    def time_first(v: torch.Tensor) -> torch.Tensor:
        # The copy is needed in any case, so the reverse direction costs nothing here.
        return v.transpose(0, 1).flip(0) if reverse else v.transpose(0, 1).contiguous()

    # Mixed-precision training must not round the states: matmul is on autocast's list.
    with torch.autocast(x.device.type, enabled=False):
        y: torch.Tensor = _Scan.apply(
            time_first(delta), time_first(delta * x), A.t(), time_first(B), time_first(C)
        )
    return (y.flip(0) if reverse else y).transpose(0, 1)


def _states(decay: torch.Tensor, b: torch.Tensor, drive: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Returns the states of a chunk, (steps, batch, states, channels), after the state ``before``."""
    h = b[..., None] * drive[:, :, None]
    for a, now in zip(decay.unbind(), h.unbind(), strict=True):
        before = torch.addcmul(now, a, before, out=now)
    return h


class _Scan(torch.autograd.Function):
    """C . h from step sizes and drives (length, batch, channels), rates (states, channels), b and c."""

    @staticmethod
    def forward(
        ctx: Any,
        delta: torch.Tensor,
        drive: torch.Tensor,
        rate: torch.Tensor,
        b: torch.Tensor,
        c: torch.Tensor,
    ) -> torch.Tensor:
        length, batch, channels = delta.shape
        y = torch.empty_like(drive)
        state = delta.new_zeros(batch, rate.shape[0], channels)
        starts = []
        for first in range(0, length, CHUNK):
            part = slice(first, first + CHUNK)
            starts.append(state)
            h = _states(torch.exp(delta[part, :, None] * rate), b[part], drive[part], state)
            y[part] = torch.matmul(c[part, :, None], h)[:, :, 0]
            state = h[-1].clone()  # a view would keep the whole chunk alive
        ctx.save_for_backward(delta, drive, rate, b, c, torch.stack(starts))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        delta, drive, rate, b, c, starts = ctx.saved_tensors
        grads = tuple(torch.zeros_like(v) for v in (delta, drive, rate, b, c))
        later = torch.zeros_like(starts[0])
        for index in reversed(range(len(starts))):
            part = slice(index * CHUNK, (index + 1) * CHUNK)
            inputs = (delta[part], drive[part], rate, b[part], c[part])
            later = _backward_chunk(inputs, starts[index], grad_y[part], later, grads, part)
        return grads


def _backward_chunk(
    inputs: tuple[torch.Tensor, ...],
    before: torch.Tensor,
    grad_y: torch.Tensor,
    later: torch.Tensor,
    grads: tuple[torch.Tensor, ...],
    part: slice,
) -> torch.Tensor:
    """Writes one chunk's gradients into ``grads``.

    Args:
        inputs: the chunk's delta, drive, rate, b and c.
        before: the state before the chunk.
        grad_y: gradient of the chunk's outputs, (steps, batch, channels).
        later: gradient of the chunk's last state that comes from the chunks after it.
        grads: where the gradients of the five inputs go; that of the rate is a sum over chunks.
        part: the chunk's steps.

    Returns:
        What ``later`` is for the chunk before.
    """
    delta, drive, rate, b, c = inputs
    grad_delta, grad_drive, grad_rate, grad_b, grad_c = grads
    decay = torch.exp(delta[:, :, None] * rate)
    h = _states(decay, b, drive, before)
    # The adjoint runs the same recurrence from the end: g_t = c_t gy_t + decay_{t+1} g_{t+1}.
    g = c[..., None] * grad_y[:, :, None]
    g[-1] += later
    for now, after, a in zip(
        g[:-1].unbind()[::-1], g[1:].unbind()[::-1], decay[1:].unbind()[::-1], strict=True
    ):
        torch.addcmul(now, a, after, out=now)
    grad_c[part] = torch.matmul(h, grad_y[..., None])[..., 0]
    grad_b[part] = torch.matmul(g, drive[..., None])[..., 0]
    grad_drive[part] = torch.matmul(b[:, :, None], g)[:, :, 0]
    decay *= g
    later = decay[0].clone()
    decay[0] *= before
    decay[1:] *= h[:-1]
    grad_delta[part] = (decay * rate).sum(2)
    grad_rate += torch.einsum("tbnd,tbd->nd", decay, delta)
    return later
