"""The Android demo: its Java and native code in this machine's JVM, its manifest, and the whole app."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soxr

from antispoof.audio import CLIP_SAMPLES, SAMPLE_RATE
from antispoof.outputs import cache_folder
from antispoof.speechlike import speech_like, speech_like_batch
from benchmarks.devices.runs import check_scores, parse_answer
from benchmarks.results_file import read_results
from export import embed, sign, to_onnx
from quantize import onnx_int8
from runtimes import load
from runtimes.golden import read_golden
from runtimes.native_core import Event
from runtimes.stream import Listener, rules_of, stream_config
from runtimes.stream_model import StreamModel

REPOSITORY = Path(__file__).resolve().parents[1]
DEMO = REPOSITORY / "android_demo"
ANDROID = "{http://schemas.android.com/apk/res/android}"
CACHE = cache_folder() / "android"
HEADERS = CACHE / "onnxruntime" / "include"
JUNIT = (Path("/usr/share/java/junit4.jar"), Path("/usr/share/java/hamcrest-core.jar"))
FLOAT_TOLERANCE = 1e-4  # of the float32 file: the format's own (antispoof/formats.py)
RATE = 48_000  # what phones record at when they are not asked for 16 kHz

needs_java = pytest.mark.skipif(
    not all(map(shutil.which, ("java", "javac", "cc"))) or not all(path.is_file() for path in JUNIT),
    reason="needs a JDK, a C compiler and Debian's junit4",
)


def embed_signed(model_file: Path, folder: Path) -> Path:
    """Writes the folder that the app reads, signed by a key that nobody keeps."""
    key = folder.with_suffix(".pem")
    assert sign.main(["new-key", str(key)]) == 0
    assert embed.main(["android", str(model_file), "--into", str(folder), "--key", str(key)]) == 0
    return folder


def record(model_file: Path, folder: Path) -> None:
    """Puts a recording beside a detector, and what Python's stream says of it."""
    turns = [speech_like(31, 5 * SAMPLE_RATE), np.zeros(3 * SAMPLE_RATE), speech_like(32, 3 * SAMPLE_RATE)]
    pcm = soxr.resample(np.concatenate(turns), SAMPLE_RATE, RATE, quality="VHQ")
    samples = np.round(pcm * 32_767).clip(-32_768, 32_767).astype("<i2")
    runtime = load(model_file)

    def score(event: Event) -> float:
        assert event.window is not None
        return float(runtime.score(event.window[None])[0])

    model = StreamModel(runtime.manifest, runtime.input.samples, SAMPLE_RATE // 2, score)
    out = io.StringIO()
    config = stream_config(RATE, 1, model.samples, model.hop, True)
    listener = Listener(model, config, rules_of(model.manifest, None, 3.0), as_json=True, out=out)
    listener.tell(listener.stream.feed(samples.astype(np.int16)))
    listener.tell(listener.stream.finish())
    scored = [line for line in out.getvalue().splitlines() if '"scored"' in line]
    (folder / "stream.pcm").write_bytes(samples.tobytes())
    (folder / "stream.jsonl").write_text("\n".join([str(RATE), *scored]) + "\n")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The bundled detector in float32, and in integers that are the same on every processor."""
    folder = tmp_path_factory.mktemp("models")
    assert to_onnx.main(["--out", str(folder)]) == 0
    assert onnx_int8.main([str(folder / "fscnn.onnx"), "--recipe", "w8a8-rr-f64"]) == 0
    let_decide(folder / "fscnn.onnx")
    return folder / "fscnn.onnx", folder / "fscnn.w8a8-rr-f64.onnx"


def let_decide(model_file: Path) -> None:
    """Gives a file something to decide by, in the middle of what it scores generated speech."""
    path = model_file.with_name(model_file.name + ".manifest.json")
    middle = float(np.median(load(model_file).score(speech_like_batch(5, CLIP_SAMPLES))))
    facts = json.loads(path.read_text())
    facts["calibration"] = {"scale": 1.5, "offset": -0.25, "data": "none: for a test"}
    facts["thresholds"] = [{"name": "eer", "score": middle, "data": "none: for a test"}]
    path.write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def detectors(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Each embedded, with a recording."""
    folder = tmp_path_factory.mktemp("detectors")
    embedded = []
    for model_file in models:
        embedded.append(embed_signed(model_file, folder / model_file.name))
        record(model_file, embedded[-1])
    return embedded[0], embedded[1]


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-3_000:]
    return done.stdout


@dataclass(frozen=True)
class JUnit:
    """What the tests in the JVM printed, and the folder that they wrote to."""

    output: str
    folder: Path


@pytest.fixture(scope="module")
def junit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> JUnit:
    """All tests in the JVM, those that need ONNX Runtime's headers where there are some."""
    import onnxruntime

    folder = tmp_path_factory.mktemp("jvm")
    embedded = request.getfixturevalue("detectors") if HEADERS.is_dir() else ()
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.1.*")
    places = {"ONNXRUNTIME_LIBRARY": str(library), "ONNXRUNTIME_HEADERS": str(HEADERS)}
    return JUnit(run(DEMO / "scripts" / "test-host.sh", folder, *embedded, **places), folder)


@needs_java
def test_core_and_native_in_the_jvm(junit: JUnit) -> None:
    assert "\nOK (" in junit.output
    assert "WARNING" not in junit.output, "what -Xcheck:jni found"
    assert "FATAL" not in junit.output


@needs_java
@pytest.mark.skipif(not HEADERS.is_dir(), reason="needs ONNX Runtime's headers: make android brings them")
def test_a_clip_has_one_score_in_python_and_in_the_jvm(detectors: tuple[Path, Path], junit: JUnit) -> None:
    # The scores themselves are compared in DetectorTest: golden clips, and a whole recording at 48 kHz.
    assert "w8a8-rr-f64.onnx golden scores within 0.0\n" in junit.output
    check_benchmark_files(detectors[0] / "fscnn.onnx", junit.folder)


def check_benchmark_files(model_file: Path, folder: Path) -> None:
    """What the app's benchmark mode writes is what the toolchain reads."""
    (row,) = read_results(folder / "on-device.json", "on-device")["rows"]
    assert row["sha256"] == hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert row["ms"]["p90"] >= row["ms"]["p50"] >= row["ms"]["least"] > 0
    golden, _ = read_golden(model_file)
    answer = parse_answer((folder / "answer.json").read_text(), golden.clips, 20)
    assert check_scores(answer, golden) <= FLOAT_TOLERANCE
    assert row["library"] == answer.library


def manifest() -> Any:
    return ElementTree.parse(DEMO / "app" / "src" / "main" / "AndroidManifest.xml").getroot()


def test_the_app_may_hear_and_nothing_else() -> None:
    asked = [tag.get(f"{ANDROID}name") for tag in manifest().iter() if "permission" in tag.tag]
    assert asked == ["android.permission.RECORD_AUDIO"]
    assert manifest().find("application").get(f"{ANDROID}allowBackup") == "false"


def test_turning_the_phone_does_not_end_a_recording() -> None:
    (screen,) = (tag for tag in manifest().iter("activity") if tag.get(f"{ANDROID}name") == ".MainActivity")
    kept = set(screen.get(f"{ANDROID}configChanges").split("|"))
    assert kept >= {"orientation", "screenSize", "smallestScreenSize", "screenLayout"}
    layouts = {path.parent.name for path in (DEMO / "app" / "src" / "main" / "res").glob("layout*/*.xml")}
    assert layouts == {"layout"}, "another layout for a turned phone would not be used"


def test_other_apps_can_start_the_screen_and_not_the_benchmark() -> None:
    exported = {
        tag.get(f"{ANDROID}name"): tag.get(f"{ANDROID}permission")
        for tag in manifest().iter()
        if tag.get(f"{ANDROID}exported") == "true"
    }
    assert exported == {".MainActivity": None, ".BenchmarkActivity": "android.permission.DUMP"}


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a git checkout")
def test_no_binary_and_no_detector_is_kept() -> None:
    kept = run("git", "-C", REPOSITORY, "ls-files", "-co", "--exclude-standard", "android_demo").split()
    kinds = {Path(name).suffix for name in kept}
    assert not kinds & {".apk", ".so", ".jar", ".jks", ".onnx", ".pem", ".dex", ".class", ".o"}


def test_where_a_tool_cannot_be_had_the_app_is_skipped(tmp_path: Path) -> None:
    offline = tmp_path / "apt-get"
    offline.write_text("#!/bin/sh\nexit 100\n")
    offline.chmod(0o755)
    places = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ANTISPOOF_CACHE": str(tmp_path / "cache")}
    (line,) = run(DEMO / "scripts" / "build-apk.sh", tmp_path / "out", tmp_path, **places).splitlines()
    assert line.startswith("SKIPPED: ")


def test_a_keystore_that_is_not_there_is_told_before_anything_is_built(tmp_path: Path) -> None:
    places = {"ANTISPOOF_KEYSTORE": str(tmp_path / "release.p12")}
    command = [DEMO / "scripts" / "build-apk.sh", tmp_path / "out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | places, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tmp_path / 'release.p12'}: there is no such keystore (ANTISPOOF_KEYSTORE)\n"


def make_keystore(path: Path, password: str) -> dict[str, str]:
    """Returns the environment in which the app is signed with a key of CN=own, one of two."""
    for alias in ("another", "own"):
        flags = ["-keyalg", "RSA", "-keysize", "2048", "-dname", f"CN={alias}", "-storepass", password]
        run("keytool", "-genkeypair", "-keystore", path, "-alias", alias, *flags)
    return {
        "ANTISPOOF_KEYSTORE": str(path),
        "ANTISPOOF_KEY_ALIAS": "own",
        "ANTISPOOF_KEYSTORE_PASSWORD": password,
    }


@pytest.mark.slow
def test_the_whole_app(detectors: tuple[Path, Path], tmp_path: Path) -> None:
    build = [DEMO / "scripts" / "build-apk.sh", tmp_path, detectors[1]]
    output = run(*build, PYTHON=sys.executable)
    if "SKIPPED" in output:
        pytest.skip(output.strip().splitlines()[-1])
    apk = tmp_path / "antispoof-demo.apk"
    assert "libonnxruntime.so, arm64-v8a" in output
    own = make_keystore(tmp_path / "release.p12", "secret-word")
    run(*build, PYTHON=sys.executable, **own)
    signers = run("apksigner", "verify", "--print-certs", "--min-sdk-version", "24", apk)
    assert re.findall(r"CN=\w+", signers) == ["CN=own"]
    places = os.environ | own | {"PYTHON": sys.executable, "ANTISPOOF_KEYSTORE_PASSWORD": "another-word"}
    done = subprocess.run(build, capture_output=True, text=True, env=places, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("release.p12: keystore password was incorrect\n")
    content = bytearray(apk.read_bytes())
    content[len(content) // 2] ^= 1
    apk.write_bytes(content)
    check = DEMO / "scripts" / "check_apk.py"
    android = CACHE / "sdk" / "usr" / "share" / "java" / "com.android.android-23.jar"
    done = subprocess.run([sys.executable, check, apk, android], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "apksigner" in done.stderr


@pytest.mark.slow
def test_the_apps_own_runtime_gives_the_golden_scores(detectors: tuple[Path, Path], tmp_path: Path) -> None:
    script = DEMO / "scripts" / "run_android_library.py"
    output = run(sys.executable, script, tmp_path, *detectors)
    if "SKIPPED" in output:
        pytest.skip(output.strip().splitlines()[-1])
    assert output.count("golden scores within") == 3 * len(detectors)
