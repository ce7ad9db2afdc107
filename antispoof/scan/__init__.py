"""The selective scan of Mamba (S6) in every form that an exporter or a trainer needs.

    Delta = softplus(dt + dt_bias)
    h_t = exp(Delta_t * A) * h_{t-1} + Delta_t * B_t * x_t
    y_t = (C_t . h_t + D * x_t) * silu(z_t)

Gu and Dao 2023, arXiv 2312.00752, Algorithm 2, with the softplus, the skip and the gate of the
authors' code. Shapes are channels last: ``x``, ``dt``, ``z`` and ``y`` are (batch, length, channels),
``B`` and ``C`` are (batch, length, states), ``A`` is (channels, states) and negative, ``D`` and
``dt_bias`` are (channels,). The state is (batch, states, channels): with the channels last every
elementwise step is one long contiguous loop.

All forms compute the same numbers. A model calls ``selective_scan`` and says nothing about formats; an
exporter chooses for the whole model: ``with scan_form("onnx"), torch.no_grad(): torch.onnx.export(...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import get_args

import torch
from torch.nn import functional

from antispoof.errors import UserError
from antispoof.lowering import ScanForm, current_lowering, lowering
from antispoof.scan.eager import eager_scan
from antispoof.scan.onnx_form import onnx_scan
from antispoof.scan.reference import reference_scan
from antispoof.scan.stable_softplus import exportable_softplus
from antispoof.scan.static import static_scan

CoreScan = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, bool], torch.Tensor
]

# Each takes (x, delta, A, B, C, reverse) with delta after the softplus, and returns C . h.
FORMS: dict[ScanForm, CoreScan] = {
    "reference": reference_scan,
    "eager": eager_scan,
    "onnx": onnx_scan,
    "static": static_scan,
}


def _checked(form: str) -> ScanForm:
    if form not in get_args(ScanForm):
        raise UserError(f"there is no scan form {form!r}; choose one of {', '.join(get_args(ScanForm))}")
    return form  # type: ignore[return-value]


def scan_form(form: ScanForm) -> AbstractContextManager[None]:
    """Makes ``form`` the one that every ``selective_scan`` inside the ``with`` block runs as.

    Forms: ``eager`` (the default: fast, made for training), ``onnx`` (one ONNX ``Scan`` per call),
    ``static`` (mul, add, exp, matmul, slice and concat only, for LiteRT and Core ML) and
    ``reference`` (the plain loop, at any precision).

    Raises:
        UserError: if there is no such form.
    """
    return lowering(replace(current_lowering(), scan=_checked(form)))


def selective_scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    form: ScanForm | None = None,
    reverse: bool = False,
) -> torch.Tensor:
    """Runs the selective state space model over a whole sequence, from rest.

    Args:
        x: input, (batch, length, channels).
        dt: step size before the softplus, (batch, length, channels).
        A: decay rates, (channels, states), negative.
        B: input projection per step, (batch, length, states).
        C: output projection per step, (batch, length, states).
        D: weight of the skip from x to y, (channels,).
        z: gate before its silu, (batch, length, channels).
        dt_bias: added to dt before the softplus, (channels,).
        form: which formulation to run; the one of ``scan_form`` where none is given.
        reverse: from the last step to the first, as if x, dt, B, C and z were flipped in time and y
            flipped back.

    Returns:
        y, (batch, length, channels), in the type of x. All forms work in float32 or wider.

    Raises:
        UserError: if there is no such form, or if a graph is traced while the form is ``eager``.
    """
    form = current_lowering().scan if form is None else _checked(form)
    if form == "eager" and torch.compiler.is_exporting():
        raise UserError(
            'an exporter must choose a scan form: trace the model inside `with scan_form("onnx"):`'
        )
    wide_x, dt, A, B, C = _widened(x, dt, A, B, C)
    y = FORMS[form](wide_x, _step_size(dt, dt_bias, form), A, B, C, reverse)
    y = _skip_and_gate(y, wide_x, D, z)
    return y if y.dtype == x.dtype else y.to(x.dtype)


def selective_scan_step(
    state: torch.Tensor,
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advances the causal scan by one frame; zeros are the state before the first.

    Args:
        state: (batch, states, channels), float32 or wider.
        x: input frame, (batch, channels).
        dt: step size before the softplus, (batch, channels).
        A: decay rates, (channels, states), negative.
        B: input projection, (batch, states).
        C: output projection, (batch, states).
        D: weight of the skip, (channels,).
        z: gate before its silu, (batch, channels).
        dt_bias: added to dt before the softplus, (channels,).

    Returns:
        y, (batch, channels), and the new state.
    """
    delta = _step_size(dt, dt_bias, current_lowering().scan)
    decay = torch.exp(delta[:, None] * A.t())
    state = decay * state + B[:, :, None] * (delta * x)[:, None]
    y = torch.matmul(C[:, None], state)[:, 0]
    return _skip_and_gate(y, x, D, z), state


def _widened(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Half precision forgets slow states. Nothing is cast in vain: a cast to the same type is a node too."""
    return [v.float() if v.dtype in (torch.float16, torch.bfloat16) else v for v in tensors]


def _step_size(dt: torch.Tensor, dt_bias: torch.Tensor | None, form: ScanForm) -> torch.Tensor:
    raw = dt if dt_bias is None else dt + dt_bias
    return exportable_softplus(raw) if form in ("onnx", "static") else functional.softplus(raw)


def _skip_and_gate(
    y: torch.Tensor, x: torch.Tensor, D: torch.Tensor | None, z: torch.Tensor | None
) -> torch.Tensor:
    if D is not None:
        y = y + D * x
    return y if z is None else y * functional.silu(z)
