"""One ONNX ``Scan`` per call, made from PyTorch's scan operator while the graph is traced.

The body runs once per step, so its node count is the cost: five nodes where the batch is a constant 1
(two of them Gemm, which adds the decayed state while it multiplies), six where it is not.
"""

from __future__ import annotations

import torch


def onnx_scan(
    x: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, reverse: bool
) -> torch.Tensor:
    """Returns C . h, (batch, length, channels).

    Batch and length may be dynamic in the exported graph. A batch that is exactly 1 and static when the
    graph is traced gives the faster body, good for that batch only; any other gives the general one.
    """
    # A prototype of PyTorch's, so no other form may depend on it. Its public wrapper would trace the body
    # with Dynamo, which takes seconds and guesses dynamic sizes; the operator itself does not.
    from torch._higher_order_ops.scan import scan_op

    single = isinstance(x.shape[0], int) and x.shape[0] == 1

    def time_first(v: torch.Tensor, column: bool = False) -> torch.Tensor:
        v = v.squeeze(0) if single else v.transpose(0, 1)
        v = v.flip(0) if reverse else v.contiguous()
        return v.unsqueeze(-1 if column else -2)

    shape = (A.shape[1], x.shape[2]) if single else (x.shape[0], A.shape[1], x.shape[2])
    inputs = (time_first(delta), time_first(delta * x), time_first(B, column=True), time_first(C))
    body = _single_step if single else _general_step
    _, y = scan_op(body, [x.new_zeros(shape)], list(inputs), (A.t().contiguous(),))
    y = y.squeeze(-2)
    y = y.flip(0) if reverse else y
    return y.unsqueeze(0) if single else y.transpose(0, 1)


def _general_step(
    h: torch.Tensor,
    d: torch.Tensor,
    drive: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    rate: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    # matmul and not mul for the outer product: runtimes have a vector kernel for the one only.
    h = torch.exp(d * rate) * h + torch.matmul(b, drive)
    return h, torch.matmul(c, h)


def _single_step(
    h: torch.Tensor,
    d: torch.Tensor,
    drive: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    rate: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    h = torch.addmm(torch.exp(d * rate) * h, b, drive)
    return h, torch.mm(c, h)
