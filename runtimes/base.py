"""What every runtime answers: clips in, scores out, and a refusal in words for anything else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from antispoof.errors import UserError
from antispoof.manifest import Input, Manifest


class Runtime(ABC):
    """A detector ready to score.

    Attributes:
        path: The file it came from.
        manifest: What the file's manifest says; None for a PyTorch checkpoint, which has none.
        input: Name, batch size and clip length of the input.
    """

    path: Path
    manifest: Manifest | None
    input: Input

    def score(self, waveforms: np.ndarray) -> np.ndarray:
        """Returns the scores ``(batch,)`` of ``waveforms (batch, samples)``, higher = more likely bona fide.

        Args:
            waveforms: float32 at 16 kHz, of exactly the model's clip length (see
                `antispoof.audio.fit_length`). Where the file has a fixed batch size, any number of
                clips is scored in as many runs as it takes.

        Raises:
            UserError: Another shape, type or length, or values that are not finite.
        """
        self._check(waveforms)
        batch = self.input.batch
        if batch is None or batch == len(waveforms):
            return self._finite(self._one_each(np.ascontiguousarray(waveforms)))
        return self._finite(
            np.concatenate(
                [self._run_padded(waveforms[i : i + batch]) for i in range(0, len(waveforms), batch)]
            )
        )

    def weights_sha256(self) -> str | None:
        """Returns the hash of the float weights that the model comes from, where it is known."""
        return None if self.manifest is None else self.manifest.weights_sha256

    @abstractmethod
    def _run(self, waveforms: np.ndarray) -> np.ndarray:
        """Runs one batch of legal clips and returns its scores, float32 ``(batch,)``."""

    def _run_padded(self, waveforms: np.ndarray) -> np.ndarray:
        assert self.input.batch is not None
        missing = self.input.batch - len(waveforms)
        padded = (
            np.concatenate([waveforms, np.zeros((missing, self.input.samples), np.float32)])
            if missing
            else waveforms
        )
        return self._one_each(np.ascontiguousarray(padded))[: len(waveforms)]

    def _one_each(self, waveforms: np.ndarray) -> np.ndarray:
        """Runs a batch; a file may leave the size of its output open, and give any."""
        scores = self._run(waveforms)
        if scores.shape != (len(waveforms),):
            raise UserError(
                f"{self.path.name}: the model gave scores {scores.shape} where it took {len(waveforms)} clips"
            )
        return scores

    def _check(self, waveforms: np.ndarray) -> None:
        if not isinstance(waveforms, np.ndarray) or waveforms.dtype != np.float32 or waveforms.ndim != 2:
            found = (
                f"{waveforms.dtype} {waveforms.shape}"
                if isinstance(waveforms, np.ndarray)
                else type(waveforms).__name__
            )
            raise UserError(f"{self.path.name} takes a float32 array (batch, samples), got {found}")
        if waveforms.shape[1] != self.input.samples or not len(waveforms):
            raise UserError(
                f"{self.path.name} takes clips of {self.input.samples} samples, got {waveforms.shape}: its "
                "graph is made for that length and silently wrong on others; use fit_length"
            )
        if not np.isfinite(waveforms).all():
            raise UserError(f"{self.path.name}: the waveform holds NaN or infinite samples")

    def _finite(self, scores: np.ndarray) -> np.ndarray:
        if not np.isfinite(scores).all():
            raise UserError(f"{self.path.name}: the model returned a score that is not finite")
        return scores
