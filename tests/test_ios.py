"""The iOS demo: what can be said of it without Swift, and, slowly, with it."""

from __future__ import annotations

import importlib.util
import json
import os
import plistlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.devices.runs import parse_answer
from benchmarks.on_device import KIND
from benchmarks.results_file import read_results

REPOSITORY = Path(__file__).resolve().parents[1]
DEMO = REPOSITORY / "ios_demo"
SWIFT = sorted(DEMO.rglob("*.swift"))
NATIVE = REPOSITORY / "runtimes" / "native"


def text(name: str) -> str:
    return (DEMO / name).read_text(encoding="utf-8")


def test_the_app_says_what_the_microphone_is_for() -> None:
    facts = plistlib.loads((DEMO / "App" / "Info.plist").read_bytes())
    assert "stays on this phone" in facts["NSMicrophoneUsageDescription"]
    # A key for anything else that people are asked for has no place here.
    asked = {key for key in facts if key.endswith("UsageDescription")}
    assert asked == {"NSMicrophoneUsageDescription"}
    assert facts["UIFileSharingEnabled"] is True  # benchmarks/devices/ios.py copies clips into Documents


# What Apple wants a reason for, of all that it lists, as far as it can be told from a source file.
REASONED = {
    "UserDefaults": "UserDefaults",
    "FileTimestamp": r"creationDate|modificationDate|contentModificationDate",
    "SystemBootTime": r"systemUptime|mach_absolute_time",
    "DiskSpace": r"volumeAvailableCapacity|systemFreeSize",
}


def test_the_privacy_manifest_says_what_the_code_does() -> None:
    facts = plistlib.loads((DEMO / "Sources" / "SpoofCore" / "PrivacyInfo.xcprivacy").read_bytes())
    assert facts["NSPrivacyTracking"] is False
    assert facts["NSPrivacyCollectedDataTypes"] == []
    assert '.copy("PrivacyInfo.xcprivacy")' in text("Package.swift")
    code = "".join(path.read_text() for path in SWIFT if {"Sources", "App"} & set(path.parts))
    used = {f"NSPrivacyAccessedAPICategory{name}" for name, call in REASONED.items() if re.search(call, code)}
    assert {api["NSPrivacyAccessedAPIType"] for api in facts["NSPrivacyAccessedAPITypes"]} == used


def test_the_app_has_no_network() -> None:
    assert len(SWIFT) > 20
    for path in SWIFT:
        assert not re.search(r"URLSession|URLRequest|NWConnection|import Network", path.read_text()), path


def test_the_package_compiles_every_file_of_the_core() -> None:
    included = re.findall(r'#include "(.*)"', text("Sources/CSpoofCore/core.c"))
    found = {(DEMO / "Sources" / "CSpoofCore" / name).resolve() for name in included}
    assert found == set(NATIVE.glob("*.c")) - {NATIVE / "freestanding.c"}  # that one is for WebAssembly


def test_the_vectors_are_those_of_all_languages() -> None:
    assert "../../../tests/golden" in text("Tests/SpoofCoreTests/GoldenVectorTests.swift")
    assert not list(DEMO.rglob("*.pcm"))
    # A setting that Swift's test does not know would make it fail; this says so without Swift.
    cases = json.loads((REPOSITORY / "tests" / "golden" / "core.json").read_text())["cases"]
    for name in {name for case in cases for name in (*case["config"], *case["rules"])}:
        assert f'case "{name}"' in text("Tests/SpoofCoreTests/GoldenVectorTests.swift")


def test_no_host_and_no_path_of_a_machine() -> None:
    for path in [*SWIFT, *DEMO.glob("*.sh"), *DEMO.glob("*.py"), DEMO / "project.yml"]:
        assert not re.search(r"https?://|/(home|work|Users|root)/", path.read_text(encoding="utf-8")), path


def test_the_order_of_verification_is_that_of_python() -> None:
    body = text("Sources/SpoofCore/DetectorFolder.swift").partition("func verified(")[2]
    steps = (
        "readList()",
        "readKey()",
        "signedManifest(",
        "Manifest(content",
        "checkFile(",
        "highest(",
        "readGolden(",
    )
    places = [body.index(step) for step in steps]
    assert places == sorted(places)


def test_adapters_are_empty_without_their_framework() -> None:
    for folder, module in (("CoreML", "CoreML"), ("Audio", "AVFAudio"), ("Signature", "CryptoKit")):
        for path in (DEMO / "Sources" / f"Spoof{folder}").glob("*.swift"):
            content = path.read_text(encoding="utf-8")
            assert content.startswith(f"#if canImport({module})")
            assert content.endswith("#endif\n")
            assert (DEMO / "Stubs" / f"{module}.swift").is_file()


def test_the_runners_answer_has_what_python_asks_for() -> None:
    fields = re.findall(
        r"public var (\w+): ", text("Sources/SpoofCore/Benchmark.swift").partition("RunnerAnswer")[2]
    )
    numbers = {"scores": [1.0], "times_ms": [], "runner": "r", "library": "l"}
    answer = {name: numbers.get(name, 1) for name in fields if name != "line"}
    assert parse_answer(json.dumps(answer), clips=1, runs=0).peak_rss_kib == 1


def test_without_swift_it_is_skipped_in_words(tmp_path: Path) -> None:
    tools = {"bash", "dirname", "id", "grep", "cat"}
    (tmp_path / "bin").mkdir()
    for tool in tools:
        (tmp_path / "bin" / tool).symlink_to(
            f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}"
        )
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run([DEMO / "check.sh"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.startswith("SKIPPED")) == (0, True), done.stderr
    assert re.search(r"only root can|is missing", done.stderr)


def test_what_swift_is_tested_on_can_be_made() -> None:
    spec = importlib.util.spec_from_file_location("prepare", DEMO / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    samples = prepare.recording()
    assert samples.shape == (26.0 * prepare.RATE, 2)
    assert abs(samples).max() < 32767


@pytest.mark.slow
def test_swift_builds_and_passes(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "RESULT": str(tmp_path / "result.json")}
    done = subprocess.run([DEMO / "check.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("SKIPPED"):
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert re.search(r"Executed \d\d+ tests, with 0 failures", done.stdout)
    assert done.stdout.count("types agree with the stubs") == 3
    (row,) = read_results(tmp_path / "result.json", KIND)["rows"]
    assert row["steady"] is True
    assert row["ms"]["runs"] == 120
    assert row["golden"]["clips"] >= 4
