"""A phone in a network of its own, and a model to measure on it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.devices import android
from tests.manifests import write_manifest
from tests.on_device.stand_ins import SERIAL, Phone, daemon

CLONE_NEWNET = 0x4000_0000  # of sched.h
SAMPLES = 1_600


@pytest.fixture(scope="module")
def lonely_network() -> Iterator[None]:
    """Puts this process into a network that has nothing but loopback, and back."""
    if shutil.which("adb") is None:
        pytest.skip("needs adb (Debian package adb)")
    daemon()
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as before:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip("needs the right to make a network namespace")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            subprocess.run(["adb", "kill-server"], check=False, capture_output=True)
            assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


@pytest.fixture
def phone(lonely_network: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    monkeypatch.setenv("ANDROID_SERIAL", SERIAL)  # the client also believes in an emulator
    monkeypatch.setattr(android, "LOOK_SECONDS", 0.1)
    folder = tmp_path / "stand-ins"
    folder.mkdir()
    phone = Phone(folder)
    yield phone
    phone.kill()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that scores a clip by its mean square, with its manifest."""
    path = tmp_path_factory.mktemp("model") / "loudness.onnx"
    nodes = [
        helper.make_node("Mul", ["waveform", "waveform"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axis"], ["score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "loudness",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, SAMPLES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array([1]), "axis")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return write_manifest(path, SAMPLES)
