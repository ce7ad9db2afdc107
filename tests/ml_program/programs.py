"""Programs written as coremltools writes them, and how near the evaluator comes to its arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtimes.mlpackage import import_coremltools, quiet

# NumPy and PyTorch order sums and approximate functions differently; a few float32 roundings of values
# around 10 stay below this.
TOLERANCE = 1e-5


def save(
    mb: Any, build: Callable[..., Any], specs: list[Any], path: Path, target: str = "iOS17", **kwargs: Any
) -> Path:
    """Writes a program as coremltools does, unchanged by its optimisations."""
    coremltools = import_coremltools()
    with quiet():
        program = mb.program(input_specs=specs, opset_version=coremltools.target[target])(build)
        model = coremltools.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target[target],
            pass_pipeline=coremltools.PassPipeline.EMPTY,
            skip_model_load=True,
            **kwargs,
        )
        model.save(str(path))
    return path
