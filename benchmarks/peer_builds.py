"""Makes a file of the same network for each runtime, in the way that runtime's own users would.

Every build takes the folder it works in, where ``network`` and the files of earlier builds lie, and leaves
``LABEL`` plus its suffix there. A ``.peer`` file is a folder with ``peer.json``, which names its runtime.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from antispoof.checkpoint import load_model
from antispoof.errors import UserError
from benchmarks.peer_networks import example, open_network
from benchmarks.peer_runtimes import keep_quiet
from export import to_onnx, to_tflite
from export.graph import ScoreGraph

PLAIN_OPSET = 17  # of the legacy exporter, the newest it is complete for
CALIBRATION = "calibration.npy"  # clips (clips, samples) in the folder, for who needs ranges
BUILDS: dict[str, Build] = {}


@dataclass(frozen=True)
class Build:
    """How a peer's file is made.

    Attributes:
        label: Its name in the table.
        suffix: How its file ends.
        about: What it is, in words.
        make: Makes it.
    """

    label: str
    suffix: str
    about: str
    make: Callable[[Path, Path], None]

    def path(self, folder: Path) -> Path:
        """Returns where its file lies."""
        return folder / f"{self.label}{self.suffix}"


def build(label: str, folder: Path) -> None:
    """Makes a peer's file.

    Raises:
        UserError: A library is missing, or a file that this one is made from.
    """
    torch.set_num_threads(1)
    keep_quiet()
    one = BUILDS[label]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporters' own, which are for their authors
            one.make(folder, one.path(folder))
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'antispoof[peers]'") from error


def peer(label: str, suffix: str, about: str) -> Callable[[Callable[[Path, Path], None]], Any]:
    """Registers a build: a function of the folder and of the file to make."""

    def register(make: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        if label in BUILDS:
            raise ValueError(f"two peers are called {label}")
        BUILDS[label] = Build(label, suffix, about, make)
        return make

    return register


def _needed(folder: Path, label: str) -> Path:
    path = BUILDS[label].path(folder)
    if not path.exists():
        raise UserError(f"is made from {label}, which could not be made")
    return path


def _begin(path: Path, runtime: str) -> Path:
    """Makes the folder of a ``.peer`` file."""
    path.mkdir()
    (path / "peer.json").write_text(json.dumps({"runtime": runtime}), encoding="utf-8")
    return path


def _model_name(folder: Path) -> str:
    facts = json.loads((folder / "network" / "network.json").read_text(encoding="utf-8"))
    return str(facts["model"])


def _our_flags(folder: Path, path: Path) -> list[str]:
    weights = folder / "network" / "weights.pth"
    flags = ["--model", _model_name(folder), "--checkpoint", str(weights), "--out", str(path.parent)]
    return [*flags, "--name", path.stem]


def _our_graph(folder: Path) -> nn.Module:
    """Returns our graph of the same weights: frozen, score out."""
    graph = ScoreGraph(load_model(folder / "network" / "weights.pth", _model_name(folder)).eval()).eval()
    for module in graph.modules():
        module._non_persistent_buffers_set.clear()  # ExecuTorch refuses those that are not persistent
    return graph


@peer("our-onnx", ".onnx", "export/to_onnx.py, ONNX Runtime")
def _our_onnx(folder: Path, path: Path) -> None:
    to_onnx.main(_our_flags(folder, path))


@peer("our-onnx-8-tiles", ".onnx", "export/to_onnx.py --time-tiles 8, ONNX Runtime")
def _our_onnx_tiles(folder: Path, path: Path) -> None:
    to_onnx.main([*_our_flags(folder, path), "--time-tiles", "8"])


@peer("our-tflite", ".tflite", "export/to_tflite.py, LiteRT with XNNPACK")
def _our_tflite(folder: Path, path: Path) -> None:
    to_tflite.main(_our_flags(folder, path))


@peer("plain-export", ".onnx", "torch.onnx.export, ONNX Runtime")
def _plain_export(folder: Path, path: Path) -> None:
    torch.onnx.export(
        open_network(folder / "network"), (example(),), path, dynamo=True, external_data=False, verbose=False
    )


@peer("plain-export-legacy", ".onnx", "torch.onnx.export(dynamo=False), ONNX Runtime")
def _plain_export_legacy(folder: Path, path: Path) -> None:
    network = open_network(folder / "network")
    torch.onnx.export(network, (example(),), str(path), dynamo=False, opset_version=PLAIN_OPSET)


@peer("openvino", ".peer", "plain-export in OpenVINO, float32")
def _openvino(folder: Path, path: Path) -> None:
    import openvino

    model = openvino.convert_model(_needed(folder, "plain-export"))
    openvino.save_model(model, _begin(path, "openvino") / "model.xml", compress_to_fp16=False)


@peer("openvino-int8", ".peer", "plain-export in OpenVINO, quantized by NNCF as it does by default")
def _openvino_int8(folder: Path, path: Path) -> None:
    import nncf
    import openvino

    model = openvino.convert_model(_needed(folder, "plain-export"))
    clips = [clip[None] for clip in np.load(folder / CALIBRATION)]
    quantized = nncf.quantize(model, nncf.Dataset(clips), subset_size=len(clips))
    openvino.save_model(quantized, _begin(path, "openvino") / "model.xml")


def _executorch(network: nn.Module, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    traced = torch.export.export(network, (example(),))
    program = to_edge_transform_and_lower(traced, partitioner=[XnnpackPartitioner()]).to_executorch()
    (_begin(path, "executorch") / "model.pte").write_bytes(program.buffer)


@peer("executorch", ".peer", "the same network in ExecuTorch with XNNPACK")
def _executorch_plain(folder: Path, path: Path) -> None:
    _executorch(open_network(folder / "network"), path)


@peer("executorch-our-graph", ".peer", "our graph in ExecuTorch with XNNPACK")
def _executorch_ours(folder: Path, path: Path) -> None:
    _executorch(_our_graph(folder), path)


def _mnn(source: Path, path: Path) -> None:
    import _tools
    import MNN  # noqa: F401  (loads the libraries of _tools)

    target = _begin(path, "mnn") / "model.mnn"
    # Not by the command mnnconvert: that installs packages with pip and reports to its makers.
    _tools.mnnconvert(["", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(target)])
    if not target.exists():
        raise UserError("MNN's converter wrote no file; what it says stands above")


@peer("mnn", ".peer", "plain-export in MNN")
def _mnn_plain(folder: Path, path: Path) -> None:
    _mnn(_needed(folder, "plain-export"), path)


@peer("mnn-our-graph", ".peer", "our ONNX file in MNN")
def _mnn_ours(folder: Path, path: Path) -> None:
    _mnn(_needed(folder, "our-onnx"), path)


@peer("pytorch-eager", ".peer", "the same network in PyTorch")
def _pytorch_eager(folder: Path, path: Path) -> None:
    shutil.copytree(folder / "network", _begin(path, "torch-eager"), dirs_exist_ok=True)


@peer("pytorch-compiled", ".peer", "the same network in PyTorch, torch.compile")
def _pytorch_compiled(folder: Path, path: Path) -> None:
    shutil.copytree(folder / "network", _begin(path, "torch-compiled"), dirs_exist_ok=True)
