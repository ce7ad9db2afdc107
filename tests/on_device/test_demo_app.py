"""The demo app measures itself when asked over adb; a stand-in for am leaves the files that it would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antispoof.errors import CheckFailed, UserError
from antispoof.manifest import describe_file
from benchmarks import on_device
from benchmarks.devices import android_app
from benchmarks.pages import result_tables
from benchmarks.pages.page import page
from benchmarks.results_file import read_results
from tests.on_device.stand_ins import Phone

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
