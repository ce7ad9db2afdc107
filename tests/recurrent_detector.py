"""A small network with recurrent layers, which no registered one has."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from antispoof.models.detector import Config, Detector, DetectorOutput


class RecurrentDetector(Detector):
    """Frames, a GRU and an LSTM in both directions, a small projection.

    The recurrent weights are too many for the exporter to order ahead.
    """

    config = Config(4_000)
    clip_samples = 4_000
    name = "recurrent"

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Conv1d(1, 64, 160, 160)
        self.gru = nn.GRU(64, 128, batch_first=True)
        self.lstm = nn.LSTM(128, 64, batch_first=True, bidirectional=True)
        self.classify = nn.Linear(128, 2)

    def forward(self, waveform: Tensor) -> DetectorOutput:
        """Returns logits ``(batch, 2)`` and embedding ``(batch, 128)``."""
        frames = torch.tanh(30 * self.frames(waveform.unsqueeze(1)))
        embedding = 4 * self.lstm(self.gru(frames.transpose(1, 2))[0])[0].mean(dim=1)
        return DetectorOutput(self.classify(embedding), embedding)
