"""Mamba: a selective state space layer, in either direction of time and without flipping anything.

Gu and Dao, "Mamba: linear-time sequence modeling with selective state spaces", arXiv 2312.00752,
Figure 3 and Algorithm 2. Parameters are named, shaped and initialised as in ``mamba_ssm``, so that its
checkpoints load. Where that package and a GPU are there, training runs on its fused kernel.

Glossary: L frames, D inner channels (``expand`` times the width), N states per channel, K taps of the
short convolution. Everything is channels last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoof.lowering import current_lowering
from antispoof.scan import selective_scan, selective_scan_step

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4  # the range of step sizes that training starts from


class MambaState(NamedTuple):
    """What the causal direction remembers between two frames; zeros before the first."""

    tail: Tensor  # (batch, K - 1, D), the last inputs of the convolution
    scan: Tensor  # (batch, N, D), the state of the scan


class Mamba(nn.Module):
    """``out(scan(silu(conv(x))) * silu(z))`` with ``x, z = in(input)``, forwards, backwards or both."""

    def __init__(self, width: int, states: int = 16, taps: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner = expand * width
        self.states = states
        self.dt_rank = math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, taps, groups=inner)
        self.x_proj = nn.Linear(inner, self.dt_rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, inner)
        rates = torch.arange(1, states + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(torch.log(rates).repeat(inner, 1))  # S4D-Real
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._init_step_sizes()

    def _init_step_sizes(self) -> None:
        """Spreads the step sizes log-uniformly over DT_MIN to DT_MAX seconds of model time."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        spread = torch.rand(self.dt_proj.bias.shape) * math.log(DT_MAX / DT_MIN)
        dt = torch.exp(spread + math.log(DT_MIN)).clamp(min=DT_FLOOR)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    def forward(self, x: Tensor, reverse: bool = False) -> Tensor:
        """Returns ``(batch, L, width)`` for ``x (batch, L, width)``.

        Args:
            x: The frames.
            reverse: From the last frame to the first. Equal to flipping ``x`` in time and the result back.
        """
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        return self.out_proj(self._mix(x, reverse) * F.silu(gate))

    def both_ways(self, x: Tensor) -> Tensor:
        """Returns ``self(x) + self(x, reverse=True)``.

        The two directions share the projections and the gate, which are linear or work frame by frame,
        so that the second direction costs little more than its scan.
        """
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        return self.out_proj((self._mix(x, False) + self._mix(x, True)) * F.silu(gate))

    def step(self, x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """Advances the causal direction by one frame.

        Args:
            x: The frame ``(batch, width)``.
            state: What the call before returned, or ``start(batch)``.

        Returns:
            The frame's output ``(batch, width)`` and the new state.
        """
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        window = torch.cat([state.tail, x.unsqueeze(1)], dim=1)  # (batch, K, D)
        taps, bias = self._taps()
        x = F.silu((window * taps).sum(1) + bias)
        dt, b, c = self._select(x)
        y, scan = selective_scan_step(
            state.scan, x, dt, self._decay_rates(), b, c, self.D, gate, self.dt_proj.bias
        )
        return self.out_proj(y), MambaState(window[:, 1:], scan)

    def start(self, batch: int) -> MambaState:
        """Returns the state before the first frame."""
        inner, _, taps = self.conv1d.weight.shape
        zeros = self.conv1d.weight.new_zeros
        return MambaState(zeros(batch, taps - 1, inner), zeros(batch, self.states, inner))

    def _mix(self, x: Tensor, reverse: bool) -> Tensor:
        """Returns one direction's mixture over time ``(batch, L, D)``, before the gate."""
        x = F.silu(self._convolve(x, reverse))
        dt, b, c = self._select(x)
        kernel = _cuda_kernel() if x.is_cuda and current_lowering().scan == "eager" else None
        scan = kernel or selective_scan
        return scan(x, dt, self._decay_rates(), b, c, self.D, dt_bias=self.dt_proj.bias, reverse=reverse)

    def _convolve(self, x: Tensor, reverse: bool) -> Tensor:
        """Convolves each channel with its K taps over the past, or over the future if ``reverse``.

        As a sum of shifted products, which needs no transpose where the channels are last.
        """
        length, (taps, y) = x.shape[1], self._taps()
        short = len(taps) - 1
        padded = F.pad(x, (0, 0, 0, short) if reverse else (0, 0, short, 0))
        for shift in range(len(taps)):
            y = y + padded[:, shift : shift + length] * taps[short - shift if reverse else shift]
        return y

    def _taps(self) -> tuple[Tensor, Tensor]:
        """Returns the taps ``(K, D)``, the last one for the present, and the bias ``(D,)``."""
        assert self.conv1d.bias is not None
        return self.conv1d.weight[:, 0].t(), self.conv1d.bias

    def _select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the step size before bias and softplus ``(..., D)``, and B and C ``(..., N)``."""
        dt, b, c = self.x_proj(x).split([self.dt_rank, self.states, self.states], dim=-1)
        return F.linear(dt, self.dt_proj.weight), b, c

    def _decay_rates(self) -> Tensor:
        return -torch.exp(self.A_log.float())


@cache
def _cuda_kernel() -> Callable[..., Tensor] | None:
    """Returns ``mamba_ssm``'s scan behind the signature of `selective_scan`, or None without it."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None

    def scan(
        x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, dt_bias: Tensor, reverse: bool
    ) -> Tensor:
        def time_last(v: Tensor) -> Tensor:
            return (v.flip(1) if reverse else v).transpose(1, 2).contiguous()

        x, dt, b, c = map(time_last, (x, dt, b, c))
        y = selective_scan_fn(x, dt, a, b, c, d.float(), delta_bias=dt_bias.float(), delta_softplus=True)
        y = y.transpose(1, 2)
        return y.flip(1) if reverse else y

    return scan
