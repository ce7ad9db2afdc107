"""Where no runner is named, the one for the phone's processor is fetched and pushed, with its library.

This machine's linker stands in for Android's.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from antispoof.errors import UserError
from antispoof.manifest import describe_file
from antispoof.outputs import cache_folder
from benchmarks import on_device
from benchmarks.devices import android_runner
from benchmarks.results_file import read_results
from tests.on_device.stand_ins import Phone, write_runner

DEMO = Path(__file__).resolve().parents[2] / "android_demo"


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
