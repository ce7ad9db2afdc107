"""Dual-stream SE-Mamba trained with OC-Softmax (Phase 4): the score is the cosine to a learned centre.

Zhang et al., "One-class learning towards synthetic voice spoofing detection", arXiv 2010.13995, eq. 3.
The network is that of `antispoof.models.bimamba`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from antispoof.models.bimamba import DualStreamBiMamba, DualStreamConfig
from antispoof.models.detector import DetectorOutput
from antispoof.models.registry import register


class SEMamba(DualStreamBiMamba):
    """The dual-stream network with the centre that bona fide embeddings gather around.

    The public code keeps the centre in its loss. Without it there is no score, so it is part of the
    model here: ``oc_softmax_centre (1, width)`` is trained by the loss and exported with the rest.
    """

    public_names: ClassVar[tuple[tuple[str, str], ...]] = (
        *DualStreamBiMamba.public_names,
        (r"^(\w+\.)?center$", "oc_softmax_centre"),
    )

    def __init__(self, config: DualStreamConfig) -> None:
        super().__init__(config)
        self.oc_softmax_centre = nn.Parameter(torch.empty(1, config.width))
        nn.init.kaiming_uniform_(self.oc_softmax_centre, a=0.25)

    def score(self, output: DetectorOutput) -> Tensor:
        """Returns the cosine between embedding and centre ``(batch,)``, from -1 to 1."""
        return (_unit(output.embedding) @ _unit(self.oc_softmax_centre).t()).squeeze(1)


def _unit(x: Tensor) -> Tensor:
    """Returns the rows of ``x`` at length 1, without the Expand that ``normalize`` exports as."""
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=1e-12)


@register("se-mamba", wavlm="tiny", clip_samples=16_000, channels=(16,) * 6, layers=2)
def se_mamba(**overrides: Any) -> SEMamba:
    """Dual-stream SE-Mamba with an OC-Softmax score (Phase 4): 1,665,950 parameters beside WavLM."""
    return SEMamba(DualStreamConfig(**overrides))
