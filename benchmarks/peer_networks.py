"""The network that peers are given: the authors' public code where a checkout of it is at hand, else ours.

A network is a folder with ``network.json``, ``weights.pth`` and, of the public code, ``model.py``: everything
that it takes to build it again in another process.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from antispoof.audio import CLIP_SAMPLES
from antispoof.checkpoint import load_model
from antispoof.errors import UserError
from antispoof.models import Detector
from antispoof.pretrained import load_pretrained

CONFIGURATIONS = {"aasist": "AASIST", "aasist-l": "AASIST-L"}  # names in the public repository


class Plain(nn.Module):
    """A detector as its author would export it: not frozen, logits and embedding out."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Returns embedding ``(batch, features)`` and logits ``(batch, 2)``, as the public code does."""
        output = self.detector(waveform)
        return output.embedding, output.logits


def save_network(folder: Path, model: str, checkpoint: str | None, checkout: Path | None) -> Path:
    """Writes the network that peers run into a folder; returns the weights, for our own exporters.

    Args:
        folder: Made anew.
        model: ``aasist`` or ``aasist-l``.
        checkpoint: As for the exporters; the public weights by default where there is a checkout.
        checkout: A checkout of the authors' repository.

    Raises:
        UserError: The checkout lacks something, or there are no such weights.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = folder / "weights.pth"
    facts: dict[str, Any] = {"model": model}
    if checkout is None:
        torch.save(load_pretrained(checkpoint, model).detector.state_dict(), weights)
    else:
        name = CONFIGURATIONS[model]
        source = Path(checkpoint) if checkpoint else checkout / "models" / "weights" / f"{name}.pth"
        try:
            configuration = json.loads((checkout / "config" / f"{name}.conf").read_text(encoding="utf-8"))
            shutil.copyfile(checkout / "models" / "AASIST.py", folder / "model.py")
            shutil.copyfile(source, weights)
        except (OSError, ValueError) as error:
            raise UserError(f"{checkout} is no checkout of the public AASIST code: {error}") from None
        facts["public"] = configuration["model_config"]
    (folder / "network.json").write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
    return weights


def open_network(folder: Path) -> nn.Module:
    """Builds the network of a folder, ready to run: ``(1, samples)`` to an embedding and two logits."""
    facts = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    weights = folder / "weights.pth"
    if "public" not in facts:
        return Plain(load_model(weights, facts["model"])).eval()
    spec = importlib.util.spec_from_file_location("public_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's code
        spec.loader.exec_module(module)
        network: nn.Module = module.Model(facts["public"])
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def example() -> Tensor:
    """Returns an input of the network, ``(1, samples)``."""
    return torch.randn(1, CLIP_SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.05
