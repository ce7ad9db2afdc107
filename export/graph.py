"""The network as it is exported: waveform in, score out, nothing left that only training needs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from antispoof.models import Detector, freeze

INPUT_NAME = "waveform"
OUTPUT_NAME = "score"


class ScoreGraph(nn.Module):
    """A frozen copy of a detector that returns the score alone."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector)
        freeze(self.detector)

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns the score ``(batch,)`` of ``waveform (batch, samples)``."""
        return self.detector.score(self.detector(waveform))


def trace(graph: ScoreGraph, *, dynamic_batch: bool) -> torch.export.ExportedProgram:
    """Returns the graph as `torch.export` sees it, for one clip or for any number of them."""
    # An example of two: torch takes a dimension of one for a constant.
    example = graph.detector.example_input(2 if dynamic_batch else 1)
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},) if dynamic_batch else None
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes=shapes, strict=False)
