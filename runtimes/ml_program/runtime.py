"""An ML Program as a runtime: what stands in for Core ML where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from antispoof.errors import UserError
from antispoof.manifest import Manifest
from antispoof.memory import keep_freed_memory
from runtimes.base import Runtime
from runtimes.ml_program.evaluator import Evaluator, Precision
from runtimes.ml_program.package import read_package
from runtimes.ml_program.program import Type


class MilRuntime(Runtime):
    """Scores with the evaluator."""

    def __init__(
        self, path: Path, manifest: Manifest, *, threads: int, precision: Precision = "stored"
    ) -> None:
        """Reads the package's program and binds its weights.

        Raises:
            UserError: The package is damaged, or takes or gives something else than its manifest says.
        """
        keep_freed_memory()
        torch.set_num_threads(threads)
        self.path = path
        self.manifest = manifest
        self.input = manifest.input
        program = read_package(path)
        try:
            self.evaluator = Evaluator(program, precision)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        self._check_ends(manifest)

    def _check_ends(self, manifest: Manifest) -> None:
        batch = manifest.input.batch or 0
        promised = {
            "input": {manifest.input.name: Type("float32", (batch, manifest.input.samples))},
            "output": {manifest.output.name: Type("float32", (batch,))},
        }
        found = {"input": dict(self.evaluator.program.inputs), "output": self.evaluator.output_types()}
        for kind, wanted in promised.items():
            if found[kind] != wanted:
                listed = [
                    ", ".join(f"{name} {row}" for name, row in types.items())
                    for types in (found[kind], wanted)
                ]
                raise UserError(f"{self.path}: its {kind} is {listed[0]}, its manifest says {listed[1]}")

    def _run(self, waveforms: np.ndarray) -> np.ndarray:
        assert self.manifest is not None
        scores = self.evaluator.run({self.input.name: waveforms})[self.manifest.output.name]
        if not np.isfinite(scores).all():
            raise UserError(f"{self.path.name}: {self._first_not_finite(waveforms)}")
        return scores

    def _first_not_finite(self, waveforms: np.ndarray) -> str:
        for result in self.evaluator.trace({self.input.name: waveforms}):
            for value in result.values:
                if value.is_floating_point() and not torch.isfinite(value).all():
                    what = "NaN" if value.isnan().any() else "infinite values"
                    return f"the first operation to give {what} is {result.operation.describe()}"
        return "the score is not finite"
