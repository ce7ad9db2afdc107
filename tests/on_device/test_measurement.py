"""A measurement over adb, from push to figures, and what a phone can do to spoil one.

Stand-ins are getprop and dumpsys; the daemon, the client, the shell, the runners and the models are real.
"""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from antispoof.errors import CheckFailed, UserError
from antispoof.manifest import describe_file
from benchmarks import on_device
from benchmarks.results_file import read_results
from tests.on_device.stand_ins import SERIAL, Phone, write_runner


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
