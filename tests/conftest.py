"""What every test shares: where the real audio, weights and published scores lie, if anywhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
import soundfile
import torch
from filelock import FileLock
from onnx import TensorProto, helper

from antispoof.audio import SAMPLE_RATE
from antispoof.memory import keep_freed_memory
from antispoof.outputs import cache_folder
from antispoof.speechlike import speech_like
from export import to_onnx, to_tflite
from tests.exports import ONE_SECOND, MadeOnce
from tests.manifests import write_manifest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
    keep_freed_memory()
    # A shell lets the jobs that it starts in the background ignore interrupts, and they pass that on
    # to the commands that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, public checkpoints and published scores; skips where there is none."""
    folder = Path(os.environ.get("ANTISPOOF_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "audio" / "manifest.tsv").is_file():
        pytest.skip(
            f"needs the shared audio and weights (ANTISPOOF_SHARED or {folder.name}/ beside the checkout)"
        )
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Returns a folder by its name, filled by the first test to ask, in whichever worker that runs."""
    everyone = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        everyone = everyone.parent

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder, unfinished = everyone / f"once-{name}", everyone / f"once-{name}.unfinished"
        with FileLock(everyone / f"once-{name}.lock"):
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def exported_model(made_once: MadeOnce) -> Path:
    """An ONNX file of AASIST-L with random weights, batch 1, its manifest beside it."""
    flags = ["--model", "aasist-l", "--checkpoint", "random", "--out"]
    return made_once("exported", lambda out: to_onnx.main([*flags, str(out)])) / "aasist-l.onnx"


@pytest.fixture(scope="session")
def published_model(made_once: MadeOnce, shared: Path) -> Path:
    """An ONNX file of the authors' AASIST-L, verified on real speech."""
    flags = ["--checkpoint", str(shared / "weights" / "AASIST-L.pth")]
    flags += ["--verify-audio", str(shared / "audio" / "asvspoof" / "dev"), "--out"]
    return made_once("published", lambda out: to_onnx.main([*flags, str(out)])) / "aasist-l.onnx"


@pytest.fixture(scope="session")
def one_second_model(made_once: MadeOnce) -> Path:
    """An ONNX file of the bundled AASIST-L for clips of a second, its manifest beside it: to be quantized."""
    return made_once("one-second", lambda out: to_onnx.main([*ONE_SECOND, str(out)])) / "aasist-l.onnx"


@pytest.fixture(scope="session")
def one_second_tflite(made_once: MadeOnce) -> Path:
    """The same as a TFLite file."""
    folder = made_once("one-second-tflite", lambda out: to_tflite.main([*ONE_SECOND, str(out)]))
    return folder / "aasist-l.tflite"


@pytest.fixture(scope="session")
def loudness_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file that scores a second by its mean amplitude: for tests that are not about detecting."""
    path = tmp_path_factory.mktemp("loudness") / "loudness.onnx"
    waveform = helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, SAMPLE_RATE])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])
    nodes = [
        helper.make_node("Abs", ["waveform"], ["amplitude"]),
        helper.make_node("ReduceMean", ["amplitude", "axis"], ["score"], keepdims=0),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "loudness", [waveform], [score], [axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return write_manifest(path, SAMPLE_RATE, "loudness")


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three speech-like WAV files: shorter than a clip, as long, and longer."""
    folder = tmp_path_factory.mktemp("speech")
    for seed, seconds in enumerate((1.5, 4.0375, 6.0)):
        soundfile.write(
            folder / f"clip{seed}.wav", speech_like(seed, int(seconds * SAMPLE_RATE)), SAMPLE_RATE
        )
    return folder


@pytest.fixture(scope="session")
def native_runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runner of on-device measurements, compiled for this machine, with ONNX Runtime beside it."""
    import onnxruntime

    headers = cache_folder() / "android" / "onnxruntime" / "include"
    if shutil.which("cc") is None or not headers.is_dir():
        pytest.skip("needs a C compiler and ONNX Runtime's headers: make android brings them")
    folder = tmp_path_factory.mktemp("runner")
    library = folder / "libonnxruntime.so.1"
    library.symlink_to(*(Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.1.*"))
    native = REPOSITORY / "android_demo" / "native"
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    flags += ['-DANTISPOOF_VERSION="of the tests"', "-isystem", str(headers)]
    sources = [*sorted((native / "runner").glob("*.c")), native / "onnx_session.c", library]
    out = folder / "runner"
    command = ["cc", *flags, *map(str, sources), "-Wl,-rpath,$ORIGIN", "-o", str(out)]
    subprocess.run(command, check=True)
    return out


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    """PyTorch's number of threads, which training commands set, is put back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
