"""From a traced graph to coremltools' model of it, which `runtimes.package_files` writes."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from antispoof.errors import UserError
from antispoof.lowering import lowering
from antispoof.models import freeze
from export.coreml_graph import core_ml_program, lowering_for
from export.graph import INPUT_NAME, OUTPUT_NAME, ScoreGraph
from runtimes.ml_program.evaluator import Evaluator
from runtimes.ml_program.package import read_package
from runtimes.mlpackage import import_coremltools, quiet
from runtimes.package_files import write_files

TARGETS = ("iOS16", "iOS17", "iOS18")
DEFAULT_TARGET = "iOS17"
PRECISIONS = ("float32", "float16", "mixed")
COMPUTE_UNITS = ("any", "neural-engine")
SOURCE_FILE = re.compile(r'File "([^"]+)", line')


@dataclass(frozen=True)
class Converted:
    """What the converter made, before it is a package.

    Attributes:
        model: coremltools' model, whose weights lie in a temporary folder.
        operations: How many operations of each kind it has, constants left out.
        wide: How many of them compute in float32.
    """

    model: Any
    operations: Counter[str]
    wide: int


def convert(
    graph: ScoreGraph,
    *,
    target: str = DEFAULT_TARGET,
    precision: str = "float32",
    wide: Sequence[str] = (),
    compute_units: str = "any",
) -> Converted:
    """Returns the graph as an ML Program for one clip.

    Args:
        graph: The frozen network.
        target: The oldest system that the package is for, one of `TARGETS`.
        precision: One of `PRECISIONS`.
        wide: With ``mixed``, what stays float32: kinds or names of operations, or parts of the path of
            the source that they come from, such as ``scan/``.
        compute_units: What the network is put for, one of `COMPUTE_UNITS`.

    Raises:
        UserError: coremltools is not installed, or ``wide`` matches nothing.
    """
    model = _model(
        graph,
        {INPUT_NAME: graph.detector.example_input(1)},
        [OUTPUT_NAME],
        target=target,
        precision=precision,
        wide=wide,
        compute_units=compute_units,
    )
    steps = [op for op in model._mil_program.functions["main"].operations if op.op_type != "const"]
    kept = sum(1 for op in steps if op.op_type != "cast" and _matches(op, wide))
    if precision == "mixed" and not kept:
        raise UserError(f"no operation is called {' or '.join(wide)}, or comes from such a source")
    return Converted(model, Counter(op.op_type for op in steps), kept if precision == "mixed" else 0)


def run_part(
    part: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    target: str = DEFAULT_TARGET,
    precision: str = "float32",
    wide: Sequence[str] = (),
    compute_units: str = "any",
) -> list[np.ndarray]:
    """Exports a part of a network, for inputs like these, and returns what the program makes of them."""
    with lowering(lowering_for(compute_units == "neural-engine")), torch.no_grad():
        freeze(part)
        outputs = [f"output_{index}" for index in range(len(part(*inputs)))]
    named = {f"input_{index}": x for index, x in enumerate(inputs)}
    model = _model(
        part,
        named,
        outputs,
        target=target,
        precision=precision,
        wide=wide,
        compute_units=compute_units,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.mlpackage"
        write_files(model.get_spec(), Path(model.weights_dir), path)
        given = Evaluator(read_package(path)).run({name: x.numpy() for name, x in named.items()})
    return [given[name] for name in outputs]


def _model(
    network: nn.Module,
    inputs: dict[str, Tensor],
    outputs: Sequence[str],
    *,
    target: str,
    precision: str,
    wide: Sequence[str],
    compute_units: str,
) -> Any:
    """Returns what coremltools makes of a network for inputs of these names and shapes."""
    coremltools = import_coremltools()
    tensor = coremltools.TensorType
    with quiet():
        return coremltools.convert(
            core_ml_program(
                network, tuple(inputs.values()), for_neural_engine=compute_units == "neural-engine"
            ),
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target[target],
            compute_precision=_compute_precision(coremltools, precision, wide),
            inputs=[tensor(name, tuple(x.shape), dtype=np.float32) for name, x in inputs.items()],
            outputs=[tensor(name, dtype=np.float32) for name in outputs],
            skip_model_load=True,
        )


def _compute_precision(coremltools: Any, precision: str, wide: Sequence[str]) -> Any:
    if precision != "mixed":
        return coremltools.precision[precision.upper()]

    def goes_narrow(op: Any) -> bool:
        return not _matches(op, wide)

    selector: Callable[[Any], bool] = goes_narrow
    return coremltools.transform.FP16ComputePrecision(op_selector=selector)


def _matches(op: Any, wide: Sequence[str]) -> bool:
    """Returns whether an operation is of one of these kinds, names or sources."""
    traces = [text for values in op.scopes.values() for text in values if isinstance(text, str)]
    sources = [name.rpartition("/antispoof/")[2] for text in traces for name in SOURCE_FILE.findall(text)]
    return any(
        one in (op.op_type, op.name)
        or any(one in source for source in sources if "/site-packages/" not in source)
        for one in wide
    )
