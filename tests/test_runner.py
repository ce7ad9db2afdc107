"""The runner of on-device measurements: compiled for this machine and run, and its builds for Android.

Its builds for Android have run on no phone; here they are looked at, and tests/on_device and
tests/test_android.py run them behind this machine's linker.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from antispoof.manifest import manifest_path
from antispoof.outputs import cache_folder
from antispoof.speechlike import speech_like_batch
from benchmarks.devices.runs import Answer, parse_answer
from runtimes import load

REPOSITORY = Path(__file__).resolve().parents[1]
DEMO = REPOSITORY / "android_demo"
CACHE = cache_folder() / "android"
CLIPS, SAMPLES = 3, 16_000
PAGE = 16_384
LINKERS = {
    "arm64-v8a": ("AArch64", "/system/bin/linker64"),
    "armeabi-v7a": ("ARM", "/system/bin/linker"),
    "x86_64": ("X86-64", "/system/bin/linker64"),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clips.f32"
    path.write_bytes(speech_like_batch(CLIPS, SAMPLES).astype("<f4").tobytes())
    return path


def call(runner: Path, model: Path, clips: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["--model", model, "--clips", clips, "--samples", SAMPLES, "--threads", 1, "--runs", 20]
    command = [str(runner), *map(str, words), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def answer_of(runner: Path, model: Path, clips: Path, *more: str) -> Answer:
    done = call(runner, model, clips, *more)
    assert done.returncode == 0, done.stderr
    return parse_answer(done.stdout, CLIPS, 20)


def test_it_gives_pythons_scores_and_times_them(
    native_runner: Path, loudness_model: Path, clips: Path
) -> None:
    answer = answer_of(native_runner, loudness_model, clips)
    scores = load(loudness_model).score(np.fromfile(clips, "<f4").reshape(CLIPS, SAMPLES))
    assert answer.scores == tuple(float(score) for score in scores)  # the same library: to the bit
    assert answer.runner == "antispoof of the tests"
    assert answer.library.startswith("onnxruntime 1.")
    assert min(answer.times_ms) > 0
    assert len(set(answer.times_ms)) > 1
    assert answer.load_ms > min(answer.times_ms)
    assert answer.peak_rss_kib > 10_000  # the library alone


def save_model(path: Path, names: tuple[str, str], operator: str = "ReduceMean") -> Path:
    """Writes a model whose input and output have these names."""
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node(operator, [names[0], "axis"], ["mean"], keepdims=0)]
    nodes.append(helper.make_node("Sqrt", ["mean"], [names[1]]))  # of a mean that may be negative
    given_, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names, ([1, SAMPLES], [1]), strict=True)
    )
    graph = helper.make_graph(nodes, "m", [given_], [made], [axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_names_are_the_flags_else_the_manifests_else_the_usual(
    native_runner: Path, clips: Path, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "named.onnx", ("sound", "genuine"))
    ones = tmp_path / "ones.f32"
    ones.write_bytes(np.ones(CLIPS * SAMPLES, "<f4").tobytes())
    done = call(native_runner, model, ones)
    assert (done.returncode, done.stdout) == (2, "")
    assert "name" in done.stderr
    assert answer_of(native_runner, model, ones, "--input", "sound", "--output", "genuine").scores == (1,) * 3
    facts = {"output": {"polarity": "name", "name": "genuine"}, "input": {"a": [{}, "}"], "name": "sound"}}
    manifest_path(model).write_text(json.dumps(facts, indent=1))
    assert answer_of(native_runner, model, ones).scores == (1,) * 3
    assert call(native_runner, model, ones, "--output", "score").returncode == 2
    manifest_path(model).write_text("{")
    done = call(native_runner, model, ones)
    assert (done.returncode, done.stderr) == (2, f"{manifest_path(model)}: no manifest\n")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "missing.onnx"], "missing.onnx: cannot be read"),
        (["--model", "/"], "/: cannot be read"),
        (["--model", "CLIPS"], "clips.f32: "),
        (["--clips", "missing.f32"], "missing.f32: cannot be read"),
        (["--samples", "15999"], "no clips of so many samples"),
        (["--samples", "8000"], "its input or output has not the shape that its manifest says"),
        (["--samples", "0"], "--samples: not a number that it takes"),
        (["--threads", "two"], "--threads: not a number that it takes"),
        (["--runs", "99999999999999999999"], "--runs: not a number that it takes"),
        (["--input", "x" * 1000], "has not the name"),
        (["--gpu", "1"], "--gpu: no such flag"),
        (["--runs"], "--runs: a flag and its value go together"),
    ],
)
def test_what_it_cannot_take_is_one_line_and_2(
    native_runner: Path, loudness_model: Path, clips: Path, more: list[str], message: str
) -> None:
    done = call(
        native_runner, loudness_model, clips, *(str(clips) if word == "CLIPS" else word for word in more)
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_score_that_is_no_number_is_never_a_result(
    native_runner: Path, clips: Path, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "nan.onnx", ("waveform", "score"))
    below = tmp_path / "below.f32"
    below.write_bytes(np.full(CLIPS * SAMPLES, -1, "<f4").tobytes())
    done = call(native_runner, model, below)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no finite number" in done.stderr


@pytest.mark.parametrize("count", [0, 2])
def test_a_run_that_gives_no_score_or_two_is_never_a_result(
    native_runner: Path, clips: Path, tmp_path: Path, count: int
) -> None:
    """A file may leave the size of its output open, and ONNX Runtime lets it give any."""
    nodes = [
        helper.make_node("ReduceMean", ["waveform", "axis"], ["mean"], keepdims=0),
        # As many as the sound says, which nothing can tell before it is run.
        helper.make_node("Sub", ["mean", "mean"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["integer"], to=TensorProto.INT64),
        helper.make_node("Add", ["integer", "constant"], ["count"]),
        helper.make_node("Tile", ["mean", "count"], ["score"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("axis", 1), ("constant", count))
    ]
    given_ = helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, SAMPLES])
    made = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["any"])
    graph = helper.make_graph(nodes, "m", [given_], [made], constants)
    model = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), model)
    done = call(native_runner, model, clips)
    assert (done.returncode, done.stdout) == (1, "")
    assert "more or fewer scores" in done.stderr


class Names(ctypes.Structure):
    """As manifest_names.h has it."""

    _fields_ = [("input", ctypes.c_char * 128), ("output", ctypes.c_char * 128)]


class Reader:
    """manifest_names.c, and a place for texts behind which nothing can be read."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.room = mmap.mmap(-1, 2 * PAGE)
        self.end = ctypes.addressof(ctypes.c_char.from_buffer(self.room)) + PAGE
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(self.end), PAGE, 0) == 0

    def names_in(self, text: bytes) -> tuple[bytes, bytes] | None:
        assert len(text) < PAGE
        place, found = self.end - len(text) - 1, Names()
        ctypes.memmove(place, text + b"\0", len(text) + 1)
        right = self.library.manifest_names(ctypes.c_char_p(place), ctypes.byref(found))
        return (found.input, found.output) if right else None


@pytest.fixture(scope="module")
def manifest_reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    out = tmp_path_factory.mktemp("reader") / "reader.so"
    checks = ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-fstack-protector-all"]
    source = DEMO / "native" / "runner" / "manifest_names.c"
    subprocess.run(["cc", "-std=c99", "-O1", *checks, "-shared", "-fPIC", source, "-o", out], check=True)
    return Reader(out)


NAME = st.text("abcdefghij_0123456789./:", min_size=1, max_size=127)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(NAME, NAME, st.dictionaries(st.text(), ANYTHING, max_size=4), st.sampled_from([None, 1]))
def test_names_are_found_in_any_manifest(
    manifest_reader: Reader, given_: str, made: str, rest: dict[str, object], indent: int | None
) -> None:
    inner = {key: value for key, value in rest.items() if key != "name"}
    outer = {key: value for key, value in rest.items() if key not in ("input", "output")}
    facts = outer | {"input": inner | {"name": given_}, "output": {"name": made} | inner}
    text = json.dumps(facts, indent=indent).encode()
    assert manifest_reader.names_in(text) == (given_.encode(), made.encode())
    assert manifest_reader.names_in(text[: len(text) // 2]) in (None, (given_.encode(), made.encode()))


@settings(max_examples=150, deadline=None)
@given(
    st.binary().map(lambda noise: noise.replace(b"\0", b"")) | st.text('{}[]":,\\ inputname').map(str.encode)
)
def test_noise_is_no_manifest(manifest_reader: Reader, text: bytes) -> None:
    found = manifest_reader.names_in(text)
    assert found is None or b"input" in text


@pytest.fixture(scope="module")
def android_builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runner for three processors; skips where what it takes is not there already."""
    there = [CACHE / "onnxruntime" / "include", CACHE / "libgcc"]
    programs = (shutil.which("clang-14") or shutil.which("clang"), *map(shutil.which, ("ld.lld", "readelf")))
    if not all(programs) or not all(folder.is_dir() for folder in there):
        pytest.skip("needs clang, lld and readelf, and what make android brings")
    out = tmp_path_factory.mktemp("android")
    subprocess.run([DEMO / "scripts" / "build-native.sh", "runner", CACHE, out], check=True)
    return out


@pytest.mark.parametrize("abi", LINKERS)
def test_its_builds_are_what_android_starts(android_builds: Path, abi: str) -> None:
    command = ["readelf", "-hldW", str(android_builds / abi / "runner")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    machine, linker = LINKERS[abi]
    lines = [line.split() for line in said.splitlines()]
    assert any(words[:2] == ["Type:", "DYN"] for words in lines), "Android starts position-independent files"
    assert any(words and words[0] == "Machine:" and words[-1].endswith(machine) for words in lines)
    assert f"[Requesting program interpreter: {linker}]" in said
    needed = {words[-1] for words in lines if "(NEEDED)" in words}
    assert needed == {"[libonnxruntime.so]", "[libc.so]"}
    assert ["(RUNPATH)", "Library", "runpath:", "[$ORIGIN]"] in [words[1:] for words in lines]
    assert "PIE" in said.partition("(FLAGS_1)")[2]
    assert "(TEXTREL)" not in said
    segments = [words for words in lines if words and words[0] == "LOAD"]
    assert len(segments) >= 2
    assert all(int(words[-1], 16) % PAGE == 0 for words in segments)
    assert not any("RWE" in words or "WE" in words for words in segments), (
        "no segment is written and executed"
    )


def test_the_library_has_what_its_builds_ask_for(android_builds: Path) -> None:
    """The one name that ONNX Runtime must give is there in the library that is pushed with it."""
    for abi in LINKERS:
        library = CACHE / "onnxruntime" / "jniLibs" / abi / "libonnxruntime.so"
        command = ["readelf", "--dyn-syms", "-W", str(library)]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "OrtGetApiBase" in names
