"""PyTorch itself as a runtime: the reference that every exported file is held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from antispoof.checkpoint import load_model, weights_hash
from antispoof.manifest import Input
from antispoof.memory import keep_freed_memory
from antispoof.models import Detector
from runtimes.base import Runtime


class EagerRuntime(Runtime):
    """Scores with a detector in eager PyTorch."""

    def __init__(self, model: Detector, path: Path) -> None:
        self.model = model.eval()
        self.path = path
        self.manifest = None
        self.input = Input("waveform", None, model.clip_samples)

    def weights_sha256(self) -> str:
        """Returns the hash of the weights, which no manifest tells."""
        return weights_hash(self.model)

    def _run(self, waveforms: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.model.score(self.model(torch.from_numpy(waveforms))).numpy()


def open_runtime(path: Path, *, threads: int, model: str | None, overrides: dict[str, Any]) -> EagerRuntime:
    """Opens a checkpoint. ``threads`` and the allocator's ways are settings of the whole process."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    return EagerRuntime(load_model(path, model, **overrides), path)
