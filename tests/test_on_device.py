"""Times on a phone: a real adbd on loopback, in a network of its own, with stand-ins for a phone's own tools.

Stand-ins are getprop and dumpsys, am with the app behind it, and this machine's linker for Android's; the
daemon, the client, the shell, the runners and the models are real.
The daemon is Debian's (package adbd, from trixie on); $ANTISPOOF_ADBD may name a folder it was unpacked into
with the packages that it needs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from antispoof.errors import CheckFailed, UserError
from antispoof.manifest import Input, Manifest, Output, describe_file, manifest_path
from antispoof.pretrained import cache_folder
from benchmarks import adb, android, android_app, android_runner, ios, on_device, result_tables
from benchmarks.conditions import read_results
from benchmarks.device_runs import Answer, Block, figures, is_steady, parse_answer
from benchmarks.page import page

DEMO = Path(__file__).resolve().parents[1] / "android_demo"
SERIAL = "127.0.0.1:5555"  # adbd's own port, on the loopback of a network where nothing else is
SAMPLES = 1_600
CLONE_NEWNET = 0x4000_0000  # of sched.h
INSTALLED = Path("/usr/lib/android-sdk/platform-tools/adbd")

RUNNER = f"""#!{sys.executable}
import argparse, json, resource, sys, time
import numpy, onnxruntime
p = argparse.ArgumentParser()
for flag in ("--model", "--clips", "--samples", "--threads", "--runs"):
    p.add_argument(flag)
a = p.parse_args()
clock = time.perf_counter
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(a.threads)
start = clock()
session = onnxruntime.InferenceSession(a.model, options, providers=["CPUExecutionProvider"])
load = clock() - start
clips = numpy.fromfile(a.clips, "<f4").reshape(-1, 1, int(a.samples))
def run(clip):
    start = clock()
    score = float(session.run(None, {{"waveform": clip}})[0][0])
    return score, 1e3 * (clock() - start)
checked = [run(clip) for clip in clips]
times = [run(clips[i % len(clips)])[1] for i in range(int(a.runs))]
print(json.dumps({{
    "runner": "of the tests 1", "library": f"onnxruntime {{onnxruntime.__version__}}",
    "scores": [score + OFFSET for score, _ in checked], "load_ms": 1e3 * load, "first_ms": checked[0][1],
    "times_ms": times, "peak_rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}}))
"""
GETPROP = """#!/bin/sh
case $1 in
ro.product.model) echo 'Stand-in 1' ;;
ro.soc.model) echo SM0000 ;;
ro.product.cpu.abi) echo x86_64 ;;
ro.build.version.sdk) echo 34 ;;
esac
"""
DUMPSYS = """#!/bin/sh
case $1 in
battery) printf '  AC powered: false\\n  USB powered: true\\n  level: 81\\n  temperature: 294\\n' ;;
thermalservice) echo "Thermal Status: $(cat {heat})" ;;
esac
"""
# Starts a program by the app's name, as long as it is to live, and leaves the files that the app would.
AM = """#!/bin/sh
cd {app} || exit 1
case $1 in
start)
    [ -f said ] && {{ cat said; exit 0; }}
    echo "$@" >asked
    while [ "$1" != name ]; do shift; done
    for end in on-device.json error.txt; do
        [ -f "$end" ] && cp "$end" "files/$2.$end"
    done
    [ -f dies ] || {{ bash -c 'exec -a io.antispoof.demo sleep 60' >/dev/null 2>&1 & echo $! >alive; }} ;;
force-stop) [ -f alive ] && kill "$(cat alive)" && mv alive stopped ;;
esac
"""


def daemon() -> list[str]:
    """Returns the command that starts adbd."""
    if root := os.environ.get("ANTISPOOF_ADBD"):
        libraries = Path(root) / "usr/lib/x86_64-linux-gnu"
        loader = [
            str(libraries / "ld-linux-x86-64.so.2"),
            "--library-path",
            f"{libraries}:{libraries}/android",
        ]
        return [*loader, root + str(INSTALLED)]
    found = shutil.which("adbd") or (str(INSTALLED) if INSTALLED.exists() else None)
    if found is None:
        pytest.skip("needs adbd (Debian package of trixie and later, or $ANTISPOOF_ADBD)")
    return [found]


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


class Phone:
    """A daemon that can be started and killed, and the folder of its stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heat = folder / "heat"
        self.heat.write_text("0")
        (folder / "bin").mkdir()
        self.add("getprop", GETPROP)
        self.add("dumpsys", DUMPSYS.format(heat=self.heat))
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        self.process = subprocess.Popen(
            daemon(),
            env=os.environ | {"PATH": path, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while "connected" not in self.connect():
            assert time.monotonic() < deadline, "adbd does not answer"
            time.sleep(0.1)

    def add(self, name: str, text: str) -> None:
        """Puts a stand-in on the daemon's path."""
        program = self.folder / "bin" / name
        program.write_text(text)
        program.chmod(0o755)

    def connect(self) -> str:
        done = subprocess.run(["adb", "connect", SERIAL], capture_output=True, text=True, check=False)
        return "" if "failed" in done.stdout else done.stdout

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        subprocess.run(["adb", "disconnect", SERIAL], capture_output=True, check=False)


@pytest.fixture
def phone(lonely_network: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    monkeypatch.setenv("ANDROID_SERIAL", SERIAL)  # the client also believes in an emulator
    monkeypatch.setattr(android, "LOOK_SECONDS", 0.1)
    folder = tmp_path / "stand-ins"
    folder.mkdir()
    phone = Phone(folder)
    yield phone
    phone.kill()


@pytest.fixture(scope="module")
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
    manifest = Manifest(
        model="aasist-l",
        config={},
        weights_sha256="0" * 64,
        weights="none",
        format="onnx",
        precision="float32",
        recipe="none",
        input=Input("waveform", 1, SAMPLES),
        output=Output("score"),
        licence="MIT",
        tools={},
        file=describe_file(path),
    )
    manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
    return path


def write_runner(folder: Path, text: str = RUNNER, offset: float = 0.0) -> Path:
    path = folder / "runner"
    path.write_text(text.replace("OFFSET", str(offset)))
    return path


def arguments(model: Path, runner: Path, device: Path, *more: str) -> list[str]:
    device.mkdir(exist_ok=True)
    flags = ["--runner", str(runner), "--folder", str(device), "--runs", "20", "--blocks", "3"]
    return ["android", str(model), *flags, "--cool-down", "0.01", *more]


def test_a_whole_measurement(phone: Phone, model: Path, tmp_path: Path) -> None:
    device, out = tmp_path / "device", tmp_path / "result.json"
    runner = write_runner(tmp_path)
    extra = tmp_path / "library.so"
    extra.write_bytes(b"any")
    more = ["--push", str(extra), "--cores", "0", "--json", str(out)]
    assert on_device.main(arguments(model, runner, device, *more)) == 0
    (row,) = read_results(out, "on-device")["rows"]
    assert row["sha256"] == describe_file(model).sha256
    assert row["pushed"] == {file.name: describe_file(file).sha256 for file in (runner, extra)}
    assert row["golden"] == {"clips": 8, "max_difference": 0.0, "tolerance": 1e-4}
    assert (row["device"]["model"], row["device"]["chip"], row["device"]["sdk"]) == (
        "Stand-in 1",
        "SM0000",
        "34",
    )
    assert row["before"]["battery_percent"] == 81
    assert row["before"]["battery_celsius"] == 29.4
    assert row["before"]["charging"] is True
    assert row["before"]["thermal_status"] == row["after"]["thermal_status"] == 0
    assert row["pinned_to"] == "1"
    assert row["library"].startswith("onnxruntime ")
    assert 0 < row["ms"]["least"] <= row["ms"]["p50"] <= row["ms"]["p90"]
    assert 2 <= row["blocks"]["run"] <= 3
    assert row["peak_rss_mib"] > 10
    assert list(device.iterdir()) == []  # cleaned up


def test_wrong_scores_are_never_timed(phone: Phone, model: Path, tmp_path: Path) -> None:
    device = tmp_path / "device"
    runner = write_runner(tmp_path, offset=0.001)
    with pytest.raises(CheckFailed, match="nothing was timed"):
        on_device.main(arguments(model, runner, device))
    assert list(device.iterdir()) == []


def test_a_hot_device_gives_no_figures(phone: Phone, model: Path, tmp_path: Path) -> None:
    phone.heat.write_text("3")
    with pytest.raises(CheckFailed, match="throttling"):
        on_device.main(arguments(model, write_runner(tmp_path), tmp_path / "device", "--blocks", "1"))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/bin/sh\nsleep 60\n", "was not done within 1 s"),
        ("#!/bin/sh\necho not enough memory >&2; exit 7\n", "exit code 7: not enough memory"),
        ("#!/bin/sh\necho nonsense\n", "printed no result"),
    ],
)
def test_a_bad_runner_is_a_sentence(
    phone: Phone, model: Path, tmp_path: Path, script: str, message: str
) -> None:
    device = tmp_path / "device"
    with pytest.raises(UserError, match=message):
        on_device.main(arguments(model, write_runner(tmp_path, script), device, "--time-out", "1"))
    assert list(device.iterdir()) == []


def test_a_pulled_cable_is_a_sentence(
    phone: Phone, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = tmp_path / "started"
    runner = write_runner(tmp_path, f"#!/bin/sh\ntouch {started}\nsleep 8\n")

    def pull() -> None:
        while not started.exists():
            time.sleep(0.05)
        phone.kill()

    thread = threading.Thread(target=pull)
    thread.start()
    with pytest.raises(UserError, match="is the cable in"):
        on_device.main(arguments(model, runner, tmp_path / "device"))
    thread.join()
    assert "is left on the device" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["32k", "64k"])  # full while copying; full when the runner writes
def test_a_full_device_is_a_sentence(phone: Phone, model: Path, tmp_path: Path, size: str) -> None:
    device = tmp_path / "device"
    device.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", device], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        with pytest.raises(UserError, match="full; free some of its storage"):
            on_device.main(arguments(model, write_runner(tmp_path), device))
        assert list(device.iterdir()) == []
    finally:
        subprocess.run(["umount", device], check=True)


def test_no_device_or_a_wrong_one_is_a_sentence(phone: Phone, model: Path, tmp_path: Path) -> None:
    runner = write_runner(tmp_path)
    with pytest.raises(UserError, match=f"no device 'other'; connected: .*{SERIAL}"):
        on_device.main(arguments(model, runner, tmp_path / "device", "--serial", "other"))


def test_the_runner_of_this_project_measures(
    phone: Phone, model: Path, native_runner: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    more = ["--push", str(native_runner.with_name("libonnxruntime.so.1")), "--json", str(out)]
    assert on_device.main(arguments(model, native_runner, tmp_path / "device", *more)) == 0
    (row,) = read_results(out, "on-device")["rows"]
    assert row["golden"] == {"clips": 8, "max_difference": 0.0, "tolerance": 1e-4}
    assert row["runner"] == "antispoof of the tests"
    assert set(row["pushed"]) == {"runner", "libonnxruntime.so.1"}
    assert 0 < row["ms"]["least"] <= row["ms"]["p50"] < row["first_run_ms"] + row["load_ms"]


def import_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DEMO / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(platform.machine() != "x86_64", reason="starts a program for x86_64 Android")
def test_a_person_with_a_phone_names_no_runner(
    phone: Phone, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The program and the library that a phone with this processor gets, started as it would start them."""
    script = import_script("run_android_library")
    if not (cache_folder() / "android" / "onnxruntime").is_dir() or not shutil.which("ld.lld"):
        pytest.skip("needs clang, lld and what make android brings")
    runner, library = script.get_runner("x86_64")
    script.build("cc", library, tmp_path / "shim")
    linker = f"{script.LOADER} --library-path {tmp_path / 'shim'}"
    phone.add(
        "timeout", f'#!/bin/sh\nseconds=$1\nshift\nexec {shutil.which("timeout")} $seconds {linker} "$@"\n'
    )
    (tmp_path / "device").mkdir()
    out = tmp_path / "result.json"
    flags = ["--folder", str(tmp_path / "device"), "--runs", "20", "--blocks", "3", "--cool-down", "0.01"]
    assert on_device.main(["android", str(model), *flags, "--cores", "all", "--json", str(out)]) == 0
    (row,) = read_results(out, "on-device")["rows"]
    assert row["pushed"] == {file.name: describe_file(file).sha256 for file in (runner, library)}
    assert row["golden"]["max_difference"] <= 1e-6  # another build of the library
    assert row["library"] == "onnxruntime 1.24.3"
    assert row["runner"].startswith("antispoof ")
    assert "golden scores within" in capfd.readouterr().out


def test_a_pushed_library_takes_the_place_of_the_usual(
    phone: Phone, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, other = (tmp_path / name / "libonnxruntime.so" for name in ("usual", "other"))
    for library in (usual, other):
        library.parent.mkdir()
        library.write_text(library.parent.name)
    (tmp_path / "get-runner.sh").write_text(f"#!/bin/sh\necho {write_runner(tmp_path)}\necho {usual}\n")
    (tmp_path / "get-runner.sh").chmod(0o755)
    monkeypatch.setattr(android_runner, "GET_RUNNER", tmp_path / "get-runner.sh")
    (tmp_path / "device").mkdir()
    flags = ["--folder", str(tmp_path / "device"), "--runs", "2", "--blocks", "1", "--push", str(other)]
    out = tmp_path / "result.json"
    assert on_device.main(["android", str(model), *flags, "--json", str(out)]) == 0
    (row,) = read_results(out, "on-device")["rows"]
    assert row["pushed"]["libonnxruntime.so"] == describe_file(other).sha256


def test_where_no_runner_can_be_had_another_way_is_named(
    phone: Phone, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "npm").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("ANTISPOOF_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        UserError, match=r"^no runner for x86_64: npm [\w ./@-]+; name a runner with --runner"
    ):
        on_device.main(["android", str(model)])
    phone.add("getprop", "#!/bin/sh\n")
    with pytest.raises(UserError, match=r"which processor.*--runner"):
        on_device.main(["android", str(model)])


class App:
    """What the demo app would leave behind, and what it was asked."""

    def __init__(self, phone: Phone, model: Path) -> None:
        self.folder = phone.folder / "app"
        self.files = self.folder / "files"
        self.files.mkdir(parents=True)
        phone.add("am", AM.format(app=self.folder))
        row = {
            "label": "loudness",
            "file": "loudness.onnx",
            "sha256": describe_file(model).sha256,
            "golden": {"clips": 5, "max_difference": 2e-6, "tolerance": 1e-4},
            "device": {"manufacturer": "Maker", "model": "", "chip": None, "cpu_features": ["fp16"]},
            "before": {"battery_percent": 1},
            "after": {},
            "threads": 2,
            "steady": True,
            "blocks": {"run": 2, "hot": 0, "used": 2},
            "ms": {"p50": 10.0, "p90": 11.0, "p99": 12.0, "least": 9.0, "runs": 100},
            "load_ms": 30.0,
            "first_run_ms": 15.0,
            "peak_rss_mib": 80.0,
            "runner": "antispoof-demo 0.1.0",
            "library": "onnxruntime 1.24.3",
            "times_ms": [9.0, 10.0, 12.0],
        }
        self.leave(row)

    def leave(self, row: dict[str, Any]) -> None:
        document = {"schema": 1, "kind": "on-device", "conditions": {"date": "2026-01-01"}, "rows": [row]}
        (self.folder / "on-device.json").write_text(json.dumps(document))

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = json.loads((self.folder / "on-device.json").read_text())["rows"][0]
        return row


@pytest.fixture
def app(phone: Phone, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    app = App(phone, model)
    monkeypatch.setattr(android_app, "FOLDER", str(app.files))
    monkeypatch.setattr(android_app, "LOOK_SECONDS", 0.1)
    yield app
    assert not (app.folder / "alive").exists(), "it was left running"


IN_APP = ["--in-app", "--threads", "2", "--blocks", "4"]


def test_the_app_measures_itself(
    app: App, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    assert on_device.main(["android", str(model), *IN_APP, "--json", str(out)]) == 0
    document = read_results(out, "on-device")
    (row,) = document["rows"]
    asked = (app.folder / "asked").read_text().split()
    assert asked[:4] == ["start", "-S", "-n", "io.antispoof.demo/.BenchmarkActivity"]
    assert asked[4:-2] == ["--ei", "runs", "50", "--ei", "blocks", "4", "--ei", "threads", "2", "--es"]
    measured = app.row()
    same = measured.keys() - {"device", "before", "after"}
    assert {key: row[key] for key in same} == {key: measured[key] for key in same}
    assert row["before"]["battery_percent"] == row["after"]["battery_percent"] == 81  # of the shell
    device = row["device"]
    assert (device["manufacturer"], device["model"], device["chip"]) == ("Maker", "Stand-in 1", "SM0000")
    assert row["where"] == "in the demo app"
    assert document["conditions"]["protocol"]["cores"] == "the app's"
    shown = capsys.readouterr().out
    assert "Maker Stand-in 1 SM0000: loudness.onnx with 2 threads, onnxruntime 1.24.3\np50 10.0 ms" in shown
    assert "in the demo app" in result_tables.on_device(document)
    assert "Distribution of times" in page({"phone": document}, [], result_tables.RENDERERS)
    assert list(app.files.iterdir()) == []  # cleaned up
    assert (app.folder / "stopped").exists()


def test_an_app_that_refuses_says_why(app: App, model: Path) -> None:
    (app.folder / "on-device.json").unlink()
    (app.folder / "error.txt").write_text("the detector is not signed by a key that this app trusts\n")
    with pytest.raises(CheckFailed, match="the app refused: the detector is not signed"):
        on_device.main(["android", str(model), *IN_APP])
    assert list(app.files.iterdir()) == []


def test_an_app_that_ends_or_hangs_is_a_sentence(app: App, model: Path) -> None:
    (app.folder / "on-device.json").unlink()
    with pytest.raises(UserError, match=r"not done within 0\.8 s"):
        on_device.main(["android", str(model), *IN_APP, "--time-out", "0.2"])
    (app.folder / "dies").touch()
    with pytest.raises(UserError, match="ended without a result"):
        on_device.main(["android", str(model), *IN_APP])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("Error type 3\nError: Activity class {io.antispoof.demo/x} does not exist.", "is not on the device"),
        ("java.lang.SecurityException: Permission Denial", "cannot be started: java.lang.Sec"),
    ],
)
def test_an_app_that_cannot_be_started_is_a_sentence(app: App, model: Path, said: str, message: str) -> None:
    (app.folder / "said").write_text(said)
    with pytest.raises(UserError, match=message):
        on_device.main(["android", str(model), *IN_APP])


def test_an_app_with_another_file_or_of_another_version_is_refused(app: App, model: Path) -> None:
    row = app.row()
    app.leave(row | {"sha256": "0" * 64})
    with pytest.raises(UserError, match="holds another file"):
        on_device.main(["android", str(model), *IN_APP])
    for wrong in ({key: row[key] for key in row if key != "golden"}, row | {"ms": {}}, row | {"device": 1}):
        app.leave(wrong)
        with pytest.raises(UserError, match="not what this version reads"):
            on_device.main(["android", str(model), *IN_APP])


# What follows needs no device.


def test_devices_are_read_in_every_state() -> None:
    text = "List of devices attached\nA1\tdevice\nB2\toffline\nC3\tunauthorized\n\n"
    assert adb.parse_devices(text) == {"A1": "device", "B2": "offline", "C3": "unauthorized"}
    assert adb.parse_devices("* daemon not running; starting now\nList of devices attached\n") == {}


@pytest.mark.parametrize(
    ("cores", "mask"),
    [("big", 0b1100_0000), ("little", 0b0000_1111), ("all", None), ("0", 1), ("1-2,4", 0b1_0110)],
)
def test_cores_become_a_mask(cores: str, mask: int | None) -> None:
    text = "\n".join(
        f"/sys/devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq:{khz}"
        for i, khz in enumerate([1_800_000] * 4 + [2_400_000] * 2 + [2_900_000] * 2)
    )
    assert android.core_mask(cores, android.max_frequencies(text)) == mask


def test_where_all_cores_are_alike_nothing_is_pinned() -> None:
    assert android.core_mask("big", {0: 2_000_000, 1: 2_000_000}) is None
    with pytest.raises(UserError, match="--cores"):
        android.core_mask("fast", {})


def block(milliseconds: float, heat: int | None = 0) -> Block:
    return Block(Answer("r", "l", (0.0,), 1.0, 2.0, (milliseconds,) * 10, 2048), heat, heat)


def test_blocks_are_steady_when_two_cool_ones_agree() -> None:
    assert not is_steady([block(10)])
    assert not is_steady([block(12), block(10)])
    assert is_steady([block(12), block(10), block(10.2)])
    assert not is_steady([block(10, heat=2), block(10)])
    assert is_steady([block(10, heat=None), block(10, heat=None)])  # a device that does not tell


def test_figures_are_of_the_steady_blocks_alone() -> None:
    row = figures([block(20), block(10), block(10)])
    assert row["steady"]
    assert row["ms"]["p50"] == row["ms"]["least"] == 10
    assert row["blocks"] == {"run": 3, "hot": 0, "used": 2}
    assert row["times_ms"] == [10.0] * 20
    row = figures([block(20, heat=1), block(10), block(30)])
    assert not row["steady"]
    assert row["blocks"] == {"run": 3, "hot": 1, "used": 2}
    assert row["peak_rss_mib"] == 2


GOOD = {
    "runner": "r",
    "library": "l",
    "scores": [1.5],
    "load_ms": 1,
    "first_ms": 2,
    "times_ms": [3, 4],
    "peak_rss_kib": 5,
}


@pytest.mark.parametrize(
    "change",
    [
        {"times_ms": [3]},
        {"scores": []},
        {"times_ms": [3, -1]},
        {"load_ms": "soon"},
        {"times_ms": [3, float("inf")]},
    ],
)
def test_answers_that_are_no_answers_are_refused(change: dict[str, Any]) -> None:
    assert parse_answer(json.dumps(GOOD), 1, 2).times_ms == (3, 4)
    with pytest.raises(UserError, match="the runner printed"):
        parse_answer(json.dumps(GOOD | change), 1, 2)


@settings(max_examples=40, deadline=None)
@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_noise_is_never_taken_for_a_result(text: str) -> None:
    with pytest.raises(UserError):
        parse_answer(text, 1, 2)
    with pytest.raises(UserError):
        ios.parse_console(text, 1, 2)
    with pytest.raises(UserError):
        ios.parse_phones(text)
    android.parse_battery(text)
    android.max_frequencies(text)
    adb.parse_devices(text)


# Made by hand in the form that devicectl documents: no Mac was at hand.
PHONES = json.dumps(
    {
        "result": {
            "devices": [
                {
                    "identifier": "AAAA-1",
                    "connectionProperties": {"pairingState": state},
                    "deviceProperties": {"name": name, "osVersionNumber": "17.5"},
                    "hardwareProperties": {"marketingName": "iPhone 15", "productType": "iPhone15,4"},
                }
                for name, state in (("mine", "paired"), ("a stranger's", "unpaired"))
            ]
        }
    }
)


def test_only_paired_phones_are_used() -> None:
    phones = ios.parse_phones(PHONES)
    assert [phone.name for phone in phones] == ["mine"]
    assert ios.choose_phone(phones, None).product == "iPhone15,4"
    with pytest.raises(UserError, match="mine"):
        ios.choose_phone(phones, "yours")


def test_the_console_of_a_phone_is_read() -> None:
    text = f"Launched application\n{ios.MARK} {json.dumps(GOOD)}\nANTISPOOF-THERMAL serious\n"
    assert ios.parse_console(text, 1, 2).first_ms == 2
    assert ios.parse_thermal(text) == 2
    assert ios.parse_thermal("nothing") is None
    with pytest.raises(UserError, match="2 results"):
        ios.parse_console(text + text, 1, 2)


def test_the_dry_run_prints_every_command(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--app", "Bench.app", "--bundle", "org.example.bench", "--dry-run"]
    assert on_device.main(["ios", str(model), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:5] for line in lines] == [
        ["list", "devices", "--json-output"],
        ["device", "install", "app"],
        ["device", "copy", "to"],
        ["device", "copy", "to"],
        ["device", "process", "launch"],
    ]
    assert lines[-1].endswith("--samples 64600 --threads 1 --runs 50")


@pytest.mark.skipif(shutil.which("xcrun") is not None, reason="there is an Xcode here")
def test_without_xcode_the_phone_side_says_so(model: Path) -> None:
    with pytest.raises(UserError, match="takes a Mac with Xcode"):
        on_device.main(["ios", str(model), "--app", "Bench.app", "--bundle", "org.example.bench"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--in-app", "--runner", __file__], "--in-app needs no --runner"),
        (["--push", "missing"], "no such file to push"),
        (["--runner", "missing"], "no such file to push"),
        (["--runner", __file__, "--cores", "fast"], "--cores takes"),
        (["--runner", __file__, "--runs", "0"], "at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_pushed(model: Path, more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        on_device.main(["android", str(model), *more])


def test_a_format_without_a_runner_is_told_before_anything_is_pushed(tmp_path: Path) -> None:
    file = tmp_path / "a.tflite"
    file.write_bytes(b"TFL3")
    with pytest.raises(UserError, match="--runner names a program for tflite"):
        on_device.main(["android", str(file)])
