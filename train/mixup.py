"""What a forward pass hears: a batch, mixed with another order of itself where wanted, cut into portions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from train.batches import NO_LABEL, Batch

STREAM = 1  # keeps what is drawn here apart from what the batches draw from the same seed and step


@dataclass(frozen=True)
class Heard:
    """Crops, each of which may be the sum of two.

    Attributes:
        waveforms: (batch, samples).
        labels: (batch,) of the first crop in each sum.
        clips: (batch,) number of its recording.
        other_labels: (batch,) of the second one.
        other_clips: (batch,).
        share: Of the first; 1 where nothing is mixed.
        labelled: Share of the whole batch, of which this may be a portion, that has labels.
    """

    waveforms: Tensor
    labels: Tensor
    clips: Tensor
    other_labels: Tensor
    other_clips: Tensor
    share: float = 1.0
    labelled: float = 1.0

    def mean_over(self, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Returns the loss, a function of labels and clips, against both parts of the sum by their shares."""
        first = loss(self.labels, self.clips)
        if self.share == 1:
            return first
        return self.share * first + (1 - self.share) * loss(self.other_labels, self.other_clips)

    def part(self, index: int, parts: int) -> Heard:
        """Returns the ``index``-th of ``parts`` equal portions."""
        tensors = (self.waveforms, self.labels, self.clips, self.other_labels, self.other_clips)
        size = len(self.labels) // parts
        waveforms, labels, clips, other_labels, other_clips = (
            tensor[index * size : (index + 1) * size] for tensor in tensors
        )
        return Heard(waveforms, labels, clips, other_labels, other_clips, self.share, self.labelled)


def mix(batch: Batch, alpha: float, seed: int, step: int) -> Heard:
    """Returns the batch mixed by mixup (Zhang et al., arXiv 1710.09412, sec. 2), or as it is without alpha.

    One share for the whole batch, as in the authors' code; shares and order depend on seed and step alone.
    """
    labelled = float((batch.labels != NO_LABEL).float().mean())
    heard = Heard(batch.waveforms, batch.labels, batch.clips, batch.labels, batch.clips, labelled=labelled)
    if not alpha:
        return heard
    generator = np.random.default_rng([seed, step, STREAM])
    share = float(generator.beta(alpha, alpha))
    order = torch.from_numpy(generator.permutation(len(batch.labels))).to(batch.labels.device)
    return replace(
        heard,
        waveforms=share * batch.waveforms + (1 - share) * batch.waveforms[order],
        other_labels=batch.labels[order],
        other_clips=batch.clips[order],
        share=share,
    )
