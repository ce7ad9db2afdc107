"""Layers for which Core ML's converter has no rule, or one that stumbles, are exported all the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export import coreml_file
from tests.coreml.packages import PARITY_TOLERANCE

pytest.importorskip("coremltools")

CHANNELS, FRAMES = 4, 9


class Recurrent(nn.Module):
    """A recurrent layer over time, of which the outputs are kept."""

    def __init__(self, kind: type[nn.RNNBase], **settings: bool | int) -> None:
        super().__init__()
        self.layer = kind(CHANNELS, 3, batch_first=True, **settings)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layer(x.transpose(1, 2))[0],)


class Written(nn.Module):
    """What a function makes of the input."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.function(x),)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "two GRU": lambda: Recurrent(nn.GRU, num_layers=2),
    "LSTM both ways": lambda: Recurrent(nn.LSTM, bidirectional=True),
    "RNN": lambda: Recurrent(nn.RNN),
    "maximum without a stride": lambda: Written(lambda x: F.max_pool1d(x, 3)),
    "RMS norm": lambda: Written(lambda x: F.rms_norm(x, (FRAMES,))),
    "spectrum": lambda: Written(lambda x: torch.fft.rfft(x).abs()),
    "repeated frames": lambda: Written(lambda x: F.pad(x[:, None], (0, 0, 1, 1), mode="replicate")),
    "mirrored frames": lambda: Written(lambda x: F.pad(x, (2, 1), mode="reflect")),
    "frames around a circle": lambda: Written(lambda x: F.pad(x, (2, 1), mode="circular")),
    "a map around a circle": lambda: Written(lambda x: F.pad(x[:, None], (0, 3, 1, 0), mode="circular")),
    "sinc": lambda: Written(lambda x: torch.sinc(x.clamp(min=0))),  # at zero too
    "CELU": lambda: Written(F.celu),
    "hard swish": lambda: Written(F.hardswish),
    "hard sigmoid": lambda: Written(F.hardsigmoid),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_as_in_pytorch(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    x = torch.randn(1, CHANNELS, FRAMES)
    with torch.no_grad():
        (expected,) = layer(x)
    (given,) = coreml_file.run_part(layer, (x,))
    np.testing.assert_allclose(given, expected.numpy(), atol=PARITY_TOLERANCE)
