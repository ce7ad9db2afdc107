"""Values joined in turn, as the evaluator of ML Programs joins them."""

from __future__ import annotations

import torch

from runtimes.ml_program.kinds import KINDS


def test_values_joined_in_turn() -> None:
    """As MIL's definition of ``concat`` with ``interleave`` has it."""
    one, two = torch.arange(6).reshape(3, 2), torch.arange(6, 12).reshape(3, 2)
    rows = KINDS["concat"].function(values=[one, two], axis=0, interleave=True)
    assert rows.tolist() == [[0, 1], [6, 7], [2, 3], [8, 9], [4, 5], [10, 11]]
    columns = KINDS["concat"].function(values=[one, two], axis=-1, interleave=True)
    assert columns.tolist() == [[0, 6, 1, 7], [2, 8, 3, 9], [4, 10, 5, 11]]
