"""The page: its core, its reading of signed detectors, one clip one score, and what it does in Chromium.

Node runs the page's own modules; Chromium runs the page with a microphone that plays a recording. Both are
skipped, with the reason, where they are not there. `make web-test` fetches what can be fetched.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from antispoof.audio import CLIP_SAMPLES, SAMPLE_RATE, fit_length, load_audio
from antispoof.manifest import manifest_path, read_manifest
from benchmarks import report, result_tables
from benchmarks.device_runs import Answer, Block, figures
from export import embed, sign, to_onnx
from quantize import onnx_int8
from runtimes import load
from runtimes.native_core import Judge, Stream
from runtimes.stream import rules_of, stream_config

REPOSITORY = Path(__file__).resolve().parents[1]
WEB = REPOSITORY / "web_demo"
GOLDEN = REPOSITORY / "tests" / "golden"
GOLDEN_TOLERANCE = 1e-4  # of golden scores, in float32; promised
# Of every window's score beside ONNX Runtime's on x86, at every rate of the microphone; promised.
WEB_TOLERANCE = dict.fromkeys((SAMPLE_RATE, 44_100, 48_000, 8_000), 1e-4)
RESAMPLED_TOLERANCE = 1e-3  # of scores of resampled audio, beside soxr's; promised
# Clips that the bundled detector is right about by more than 1.5, of the training and dev splits.
CLIPS = {
    "genuine": ("asvspoof/dev/LA_D_3742070.flac", "asvspoof/train/LA_T_3060760.flac"),
    "synthetic": ("asvspoof/dev/LA_D_8384015.flac", "asvspoof/train/LA_T_3118857.flac"),
}


def found(program: str) -> str:
    """Returns where a program is; skips where it is not."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"needs {program}")
    return path


def node(script: str, *arguments: object, stdin: str = "") -> str:
    """Runs a script of web_demo/tests and returns what it prints."""
    command = [found("node"), str(WEB / "tests" / script), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The streaming core as WebAssembly, built by its own Makefile."""
    for program in ("make", "clang", "wasm-ld"):
        found(program)
    folder = tmp_path_factory.mktemp("core")
    target = folder / "wasm32" / "spoof_core.wasm"
    subprocess.run(
        ["make", "-s", "-C", str(REPOSITORY / "runtimes" / "native"), f"BUILD={folder}", str(target)],
        check=True,
    )
    return target


@pytest.fixture(scope="session")
def vendor() -> Path:
    """The libraries that the page runs on; skips where they were not fetched."""
    folder = WEB / "vendor"
    if not (folder / "spoof_core.wasm").is_file():
        pytest.skip("needs web_demo/vendor (npm ci && npm run build in web_demo, or make web-test)")
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled detector as an ONNX file."""
    folder = tmp_path_factory.mktemp("web-export")
    assert to_onnx.main(["--out", str(folder)]) == 0
    return folder / "fscnn.onnx"


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "release.pem"
    assert sign.main(["new-key", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory, exported: Path, key: Path) -> Path:
    """A detector folder as `antispoof embed web` writes it."""
    folder = tmp_path_factory.mktemp("web") / "detector"
    assert embed.main(["web", str(exported), "--into", str(folder), "--key", str(key)]) == 0
    return folder


@pytest.fixture(scope="session")
def integers(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Path:
    """The bundled detector in the INT8 that is the same everywhere."""
    folder = tmp_path_factory.mktemp("web-int8")
    assert onnx_int8.main([str(exported), "--recipe", "w8a8-rr-f64", "--out", str(folder)]) == 0
    return folder / "fscnn.w8a8-rr-f64.onnx"


def script(modules: dict[str, str], code: str, *arguments: object) -> Any:
    """Runs code in node with names of the page's modules; returns what it prints, read as JSON."""
    imports = [f"import {names} from {json.dumps((WEB / path).as_uri())};" for path, names in modules.items()]
    command = [found("node"), "--input-type=module", "-e", "\n".join([*imports, code])]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


# The core


def test_the_golden_vectors(core: Path) -> None:
    facts = json.loads((GOLDEN / "core.json").read_text())
    played = json.loads(node("replay.mjs", core, GOLDEN))
    for case in facts["cases"]:
        expected = [{k: v for k, v in event.items() if k != "kind"} for event in case["events"]]
        for events in played["events"][case["name"]]:  # one list for each size of chunks
            for event in events:
                assert event.pop("window", None) is None
            assert events == expected, case["name"]
    assert [{k: row[k] for k in ("rate", "samples", "crc32", "values")} for row in played["resampled"]] == [
        {k: row[k] for k in ("rate", "samples", "crc32", "values")} for row in facts["resampled"]
    ]


LATE = """
import { readFileSync } from "node:fs";
const [wasm] = process.argv.slice(1);
const words = [], late = [false, true, true, false];
const manifest = { input: { samples: 16000 }, calibration: null, thresholds: [{ score: 0 }] };
const listener = new Listener({
  core: await WebAssembly.compile(readFileSync(wasm)), manifest, rate: 16000, channels: 1,
  score: async () => -1, isLate: () => late.shift() ?? false, tell: (word) => words.push(word),
});
const noise = Float32Array.from({ length: 64000 }, (_, i) => (i < 4000 ? 0 : Math.sin(i * i * 0.001) * 0.1));
await listener.hear(noise);
console.log(JSON.stringify(words.filter((word) => word.status !== "not enough speech").map((w) => w.status)));
"""


def test_a_slow_device_skips_windows_and_goes_on(core: Path) -> None:
    statuses = script({"engine/listener.js": "{ Listener }"}, LATE, core)
    assert statuses[:4] == ["scored", "skipped", "skipped", "scored"]


@pytest.mark.parametrize(
    "blocks", [[[5.0, 6.0, 9.0], [5.5, 6.1, 30.0]], [[5.0] * 60, [7.0] * 60, [6.9] * 60]]
)
def test_the_page_counts_times_as_phones_are_timed(blocks: list[list[float]]) -> None:
    answers = [Answer("", "", (), 0, 0, tuple(block), 0) for block in blocks]
    expected = figures([Block(answer, None, None) for answer in answers])
    code = f"console.log(JSON.stringify(figures({json.dumps(blocks)})))"
    ours = script({"engine/statistics.js": "{ figures }"}, code)
    assert {name: expected[name] for name in ("steady", "blocks")} == {
        k: ours[k] for k in ("steady", "blocks")
    }
    assert expected["ms"] == pytest.approx(ours["ms"])


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_the_rate_of_a_recording(tmp_path: Path, kind: str, rate: int) -> None:
    file = tmp_path / f"clip.{kind}"
    subtype = {"wav": "FLOAT", "flac": "PCM_24"}.get(kind)
    soundfile.write(file, 0.1 * np.sin(np.arange(rate)), rate, subtype=subtype)
    code = "import { readFileSync } from 'node:fs'; console.log(rateOf(readFileSync(process.argv[1])))"
    assert script({"page/recording.js": "{ rateOf }"}, code, file) == rate


def test_integers_of_a_recording_stay_as_they_are(tmp_path: Path) -> None:
    pcm = np.array([[-32_768, 32_767], [1, -1], [0, 12_345]], np.int16)
    soundfile.write(tmp_path / "clip.wav", pcm, 44_100)
    code = """
import { readFileSync } from "node:fs";
const { samples, ...rest } = readWav16(readFileSync(process.argv[1]));
console.log(JSON.stringify({ samples: [...samples], ...rest }));
"""
    read = script({"page/recording.js": "{ readWav16 }"}, code, tmp_path / "clip.wav")
    assert read == {"samples": pcm.ravel().tolist(), "rate": 44_100, "channels": 2, "seconds": 3 / 44_100}


# Integrity


def outcomes(folder: Path, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return json.loads(node("verify.mjs", folder, stdin=json.dumps(changes)))


def size(folder: Path, name: str) -> int:
    return (folder / name).stat().st_size


def positions(folder: Path, every: dict[str, int]) -> list[dict[str, Any]]:
    """Returns a flipped bit at every so-manieth byte of files, their ends among them."""
    changes = []
    for name, step in every.items():
        last = size(folder, name) - 1
        for at in sorted({*range(0, last + 1, step), last}):
            changes.append({"file": name, "at": at, "flip": 1 << (at % 8)})
    return changes


def assert_refused(changes: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
    for change, result in zip(changes, results, strict=True):
        assert "problem" in result, (change, result)
        assert result["isSentence"], (change, result)
        assert re.fullmatch(r"[^\n]{20,300}\.", result["problem"]), result


def test_a_signed_detector_is_accepted(vendor: Path, detector: Path) -> None:
    (result,) = outcomes(detector, [{}])
    manifest = read_manifest(detector / "fscnn.onnx")
    assert manifest.file is not None
    assert result == {"name": "fscnn.onnx", "version": 1, "sha256": manifest.file.sha256}


def test_a_changed_byte_ends_in_a_sentence(vendor: Path, detector: Path) -> None:
    name = "fscnn.onnx"
    changes = positions(
        detector,
        {
            f"{name}.manifest.json": 97,
            f"{name}.manifest.json.sig": 9,
            "trusted-key.pub": 7,
            name: 50_000,
            f"{name}.golden.json": 31,
            f"{name}.golden.f32": 250_000,
        },
    )
    files = (*sorted({change["file"] for change in changes}), "detector.json")
    changes += [{"file": file, "missing": True} for file in files]
    changes += [{"file": file, "cut": cut} for file in files for cut in (0, size(detector, file) // 2)]
    changes += [{"accepted": {"fscnn": 2}}, {"suffixes": [".mlpackage"]}]
    assert_refused(changes, outcomes(detector, changes))


@pytest.mark.slow
def test_every_byte_ends_in_a_sentence(vendor: Path, detector: Path) -> None:
    name = "fscnn.onnx"
    files = (f"{name}.manifest.json", f"{name}.manifest.json.sig", "trusted-key.pub", f"{name}.golden.json")
    changes = positions(detector, dict.fromkeys(files, 1)) + positions(detector, {name: 997})
    assert_refused(changes, outcomes(detector, changes))


def test_a_changed_list_opens_nothing_else(vendor: Path, detector: Path) -> None:
    changes = [
        {"file": "detector.json", "at": at, "flip": 1 << bit}
        for at in range(size(detector, "detector.json"))
        for bit in range(8)
    ]
    (signed,) = outcomes(detector, [{}])
    results = outcomes(detector, changes)
    assert all(result == signed or result.get("isSentence") for result in results)
    assert any(result != signed for result in results)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"schema": 2}, "another schema"),
        ({"input.samples": 960_001}, "input.samples"),
        ({"input.samples": 64_600.5}, "input.samples"),
        ({"input.sample_rate": 8_000}, "input.sample_rate"),
        ({"output.polarity": "higher is spoof"}, "output.polarity"),
        ({"calibration.scale": -1}, "turn its scores round"),
        ({"calibration.scale": "1"}, "calibration.scale"),
        ({"thresholds": {}}, "thresholds"),
        ({"model_version": -1}, "model_version"),
        ({"model_version": True}, "model_version"),
        ({"file.name": "other.onnx"}, "other.onnx"),
    ],
)
def test_a_signed_manifest_that_says_what_cannot_be(
    vendor: Path, detector: Path, key: Path, tmp_path: Path, facts: dict[str, Any], words: str
) -> None:
    folder = tmp_path / "detector"
    shutil.copytree(detector, folder)
    path = manifest_path(folder / "fscnn.onnx")
    manifest = json.loads(path.read_text())
    for name, value in facts.items():
        *parents, last = name.split(".")
        place = manifest
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(manifest))
    path.with_name(path.name + ".sig").write_bytes(signature(key, path.read_bytes()))
    (result,) = outcomes(folder, [{}])
    assert result["isSentence"]
    assert words in result["problem"]


def signature(key: Path, manifest: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(key.read_bytes(), None)
    return private.sign(b"antispoof manifest 1\n" + manifest)  # type: ignore[union-attr, call-arg]


# One clip, one score


def words_of(core: Path, folder: Path, rate: int, clips: list[np.ndarray], tmp_path: Path) -> list[list[Any]]:
    """Returns what the page's engine says of clips in int16, with ONNX Runtime Web in node."""
    files = [tmp_path / f"{i}.pcm" for i in range(len(clips))]
    for file, clip in zip(files, clips, strict=True):
        clip.astype("<i2").tofile(file)
    return [json.loads(line) for line in node("listen.mjs", core, folder, rate, *files).splitlines()]


def python_words(model: Path, rate: int, clip: np.ndarray) -> list[dict[str, Any]]:
    """Returns what runtimes/stream.py makes of it."""
    runtime = load(model, threads=1)
    rules = rules_of(runtime.manifest, None, 3.0)
    assert rules is not None
    stream, judge = Stream(stream_config(rate, 1, CLIP_SAMPLES, 8_000, True)), Judge(rules)
    words = []
    for event in (*stream.feed(clip), *stream.finish()):
        word: dict[str, Any] = {"start": event.start, "end": event.end, "speech": event.speech}
        if event.window is not None:
            score = float(runtime.score(event.window[None])[0])
            verdict = judge.hear(score, event.end)
            word |= {"score": score, "smoothed": verdict.smoothed, "decision": verdict.decision.name.lower()}
        words.append(word)
    return words


def assert_same_words(ours: list[dict[str, Any]], pythons: list[dict[str, Any]], tolerance: float) -> None:
    assert len(ours) == len(pythons)
    for one, other in zip(ours, pythons, strict=True):
        assert all(one[name] == other[name] for name in ("start", "end", "speech"))
        assert ("score" in one) == ("score" in other)
        if "score" in one:
            assert one["score"] == pytest.approx(other["score"], abs=tolerance)
            assert one["decision"] == other["decision"]


def as_pcm16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.round(samples * 32_768), -32_768, 32_767).astype(np.int16)


def at_rate(clips: dict[str, np.ndarray], rate: int) -> list[np.ndarray]:
    """Returns clips as a device of another rate would have recorded them, in int16."""
    if rate == SAMPLE_RATE:
        return [as_pcm16(clip) for clip in clips.values()]
    return [as_pcm16(soxr.resample(clip, SAMPLE_RATE, rate, "VHQ")) for clip in clips.values()]


def real_clips(shared: Path) -> dict[str, np.ndarray]:
    return {path: load_audio(shared / "audio" / path) for paths in CLIPS.values() for path in paths}


@pytest.mark.parametrize(
    "rate", [pytest.param(rate, marks=[pytest.mark.slow] * (rate != SAMPLE_RATE)) for rate in WEB_TOLERANCE]
)
def test_the_engine_in_node_hears_what_python_hears(
    vendor: Path, core: Path, detector: Path, shared: Path, tmp_path: Path, rate: int
) -> None:
    clips = at_rate(real_clips(shared), rate)
    for ours, clip in zip(words_of(core, detector, rate, clips, tmp_path), clips, strict=True):
        assert_same_words(ours, python_words(detector / "fscnn.onnx", rate, clip), WEB_TOLERANCE[rate])


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_resampled_by_the_page_scores_as_resampled_by_soxr(
    vendor: Path, core: Path, detector: Path, shared: Path, tmp_path: Path, rate: int
) -> None:
    """The windows of the page beside the same stretches resampled by soxr, in the same runtime.

    At 8 kHz too the reference is soxr's HQ on the same 8 kHz samples: what lies above 4 kHz is gone for both,
    and the edge of the band is what they can differ in. (VHQ, which keeps more of it, is 0.02 away from HQ.)
    """
    sources = at_rate(real_clips(shared), rate)
    windows, scores = [], []
    for words, source in zip(words_of(core, detector, rate, sources, tmp_path), sources, strict=True):
        heard = soxr.resample(source.astype(np.float32) / 32_768, rate, SAMPLE_RATE, "HQ").astype(np.float32)
        for word in words:
            if "score" in word and word["end"] - word["start"] == word["samples"]:  # nothing was left out
                windows.append(fit_length(heard[word["start"] : word["end"]]))
                scores.append(word["score"])
    assert len(scores) >= 8
    references = web_outputs(detector / "fscnn.onnx", np.stack(windows), tmp_path)[:, 0]
    assert np.abs(np.array(scores) - references).max() < RESAMPLED_TOLERANCE


SCORES = """
import * as ort from {ort};
import {{ readFileSync }} from "node:fs";
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync({model}), {{ executionProviders: ["wasm"] }});
const bytes = new Uint8Array(readFileSync({clips}));
const size = {size} * {dims}.reduce((a, b) => a * b);
for (let at = 0; at < bytes.length; at += size) {{
  const data = new Float32Array(bytes.slice(at, at + size).buffer);
  const results = await session.run({{ [session.inputNames[0]]: new ort.Tensor("float32", data, {dims}) }});
  console.log(JSON.stringify([...results[session.outputNames[0]].data]));
}}
process.exit(0);
"""


def web_outputs(model: Path, clips: np.ndarray, folder: Path) -> np.ndarray:
    """Returns the first output of a file in ONNX Runtime Web, for each of ``clips (clips, ...)``."""
    script = folder / "scores.mjs"
    clips.tofile(folder / "clips.raw")
    script.write_text(
        SCORES.format(
            ort=json.dumps((WEB / "vendor/onnxruntime-web/ort.wasm.min.mjs").as_uri()),
            model=json.dumps(str(model)),
            clips=json.dumps(str(folder / "clips.raw")),
            dims=[1, *clips.shape[2:]] if clips.ndim > 2 else [1, *clips.shape[1:]],
            size=clips.dtype.itemsize,
        )
    )
    return np.array([json.loads(line) for line in node(str(script)).splitlines()])


@pytest.mark.slow
def test_integers_give_the_very_same_score(
    vendor: Path, integers: Path, shared: Path, tmp_path: Path
) -> None:
    clips = np.stack([fit_length(clip) for clip in real_clips(shared).values()])
    found = web_outputs(integers, clips, tmp_path)[:, 0]
    assert np.array_equal(found.astype(np.float32), load(integers).score(clips))


# The server


@pytest.fixture(scope="session")
def server(vendor: Path, detector: Path) -> Iterator[str]:
    """The address of serve.py, run as a user runs it."""
    command = [sys.executable, str(WEB / "serve.py"), "--port", "0", "--detector", str(detector)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def fetch(url: str, **headers: str) -> tuple[dict[str, str], bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
        return dict(response.headers), response.read()


def test_the_server_sends_what_threads_need(server: str) -> None:
    headers, content = fetch(server)
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe-inline|'unsafe-eval'|https?:|\*", policy)
    assert not re.search(rb"<script(?![^>]* src=)|<style| style=| on\w+=|https?://", content)


def test_the_server_compresses_and_says_what_a_file_is(server: str) -> None:
    path = f"{server}vendor/onnxruntime-web/ort-wasm-simd-threaded.wasm"
    headers, content = fetch(path, **{"Accept-Encoding": "gzip, br"})
    assert (headers["Content-Encoding"], headers["Content-Type"]) == ("br", "application/wasm")
    assert len(content) < 4 * 2**20  # 14 MB without
    with pytest.raises(urllib.error.HTTPError) as told:
        fetch(path, **{"Accept-Encoding": "gzip, br", "If-None-Match": headers["ETag"]})
    with told.value:
        assert told.value.code == 304


@pytest.mark.parametrize(
    "path",
    ["package.json", "node_modules/x", "engine/../serve.py", "serve.py", "%2e%2e/README.md", "engine/", "x"],
)
def test_the_server_gives_nothing_else(server: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as told:
        fetch(server + path)
    with told.value:
        assert told.value.code == 404


def test_the_lock_file_names_no_registry() -> None:
    text = (WEB / "package-lock.json").read_text()
    assert "resolved" not in text
    assert "integrity" in text
    assert "registry" not in text


def test_the_page_keeps_every_module_for_later() -> None:
    kept = set(re.findall(r'"([\w.-]+)"', (WEB / "service-worker.js").read_text()))
    modules = {p.stem for folder in ("engine", "page") for p in (WEB / folder).glob("*.js")}
    assert modules <= kept


# Chromium


def browser(scenario: str, detector: Path, **task: Any) -> dict[str, Any]:
    """Does in Chromium what a scenario of web_demo/tests/browser.mjs says, and checks what holds for all."""
    if not (WEB / "node_modules" / "playwright-core").is_dir():
        pytest.skip("needs web_demo/node_modules (npm ci in web_demo, or make web-test)")
    task |= {"scenario": scenario, "chromium": found("chromium"), "python": sys.executable}
    result = json.loads(
        node("browser.mjs", stdin=json.dumps(task | {"detector": str(detector)}, default=str))
    )
    strangers = [url for url in result["requests"] if not url.startswith((result["url"], "blob:", "data:"))]
    assert not strangers
    assert not [
        line for line in result["console"] if "Content Security Policy" in line or line.startswith("error:")
    ]
    return result


@pytest.fixture(scope="session")
def recordings(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Clips as WAV files of 16 bits, by what they are."""
    folder = tmp_path_factory.mktemp("recordings")
    files: dict[str, list[Path]] = {}
    for kind, paths in CLIPS.items():
        for i, path in enumerate(paths):
            file = folder / f"{kind}{i}.wav"
            soundfile.write(file, as_pcm16(load_audio(shared / "audio" / path)), SAMPLE_RATE)
            files.setdefault(kind, []).append(file)
    return files


def test_the_page_decides_about_recordings_as_python_does(
    vendor: Path, detector: Path, recordings: dict[str, list[Path]]
) -> None:
    files = {paths[0]: kind for kind, paths in recordings.items()}
    result = browser("hearFiles", detector, files=list(files))
    for (file, kind), shown in zip(files.items(), result["files"], strict=True):
        assert shown["state"] == kind, shown["detail"]
        assert f"Sounds {kind}" == shown["decision"]
        pcm, _ = soundfile.read(file, dtype="int16")
        expected = python_words(detector / "fscnn.onnx", SAMPLE_RATE, pcm)
        assert_same_words(shown["words"], expected, WEB_TOLERANCE[SAMPLE_RATE])
    last = result["files"][-1]
    assert last["isolated"]
    assert "signature and sha256" in last["checked"]
    assert "fscnn, version 1" in last["model"]
    assert read_manifest(detector / "fscnn.onnx").licence in last["licence"]
    assert "ms" in last["latency"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(1280, 900, "light"), (390, 844, "dark")], ids=["desktop", "phone"]
)
def test_the_page_decides_about_a_microphone(
    vendor: Path,
    detector: Path,
    recordings: dict[str, list[Path]],
    tmp_path: Path,
    kind: str,
    width: int,
    height: int,
    scheme: str,
) -> None:
    picture = tmp_path / "page.png"
    result = browser(
        "listen",
        detector,
        wav=recordings[kind][0],
        seconds=10,
        **{"width": width, "height": height, "scheme": scheme, "screenshot": picture},
    )
    assert (result["state"], result["decision"]) == (kind, f"Sounds {kind}")
    assert not result["overflow"]
    assert not result["problem"]
    assert not result["after"]["problem"]
    assert "not enough speech" in {word["status"] for word in result["words"]}
    assert picture.stat().st_size > 10_000


@pytest.mark.slow
def test_the_page_works_without_a_server(
    vendor: Path, detector: Path, recordings: dict[str, list[Path]]
) -> None:
    result = browser("goOffline", detector, files=[recordings["synthetic"][0]])
    assert result["decision"] == "Sounds synthetic"
    assert result["isolated"]  # the headers are kept with the files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "task", "sentence"),
    [
        ("refuse", {"refuse": True}, "was refused; allow it"),
        ("refuse", {}, "There is no microphone"),
        ("lackWebAssembly", {}, "has no WebAssembly"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    vendor: Path, detector: Path, scenario: str, task: dict[str, Any], sentence: str
) -> None:
    shown = browser(scenario, detector, **task)["problem"]
    assert sentence in shown
    assert shown.endswith(".")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["fscnn.onnx", "fscnn.onnx.manifest.json", "fscnn.onnx.golden.f32"])
def test_a_changed_detector_is_not_opened(vendor: Path, detector: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "detector"
    shutil.copytree(detector, folder)
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)
    shown = browser("load", folder)
    assert file in shown["problem"]
    assert not shown["canListen"]
    assert shown["runtime"] == "none yet"


@pytest.mark.slow
def test_a_microphone_taken_away_and_a_pause(
    vendor: Path, detector: Path, recordings: dict[str, list[Path]]
) -> None:
    lost = browser("loseTheMicrophone", detector, wav=recordings["genuine"][0])
    assert "taken away" in lost["problem"]
    assert lost["canListen"]
    paused = browser("pauseAndResume", detector, wav=recordings["genuine"][0])
    assert paused["paused"] == paused["still"]
    assert not paused["problem"]
    assert len({word["turn"] for word in paused["words"]}) > 1  # what a pause cuts is not joined


@pytest.mark.slow
def test_the_readmes_code_runs(vendor: Path, detector: Path, shared: Path) -> None:
    (snippet,) = re.findall(r"```js\n(.*?)```", (WEB / "README.md").read_text(), re.DOTALL)
    clip = load_audio(shared / "audio" / CLIPS["synthetic"][0])
    at_48k = soxr.resample(clip, SAMPLE_RATE, 48_000).tolist()
    words = browser("runSnippet", detector, snippet=snippet, samples=at_48k)["words"]
    assert words[-1][0] == "spoof"


@pytest.mark.slow
def test_a_result_of_the_page_is_read_by_the_report(vendor: Path, detector: Path, tmp_path: Path) -> None:
    measured = browser("measure", detector)
    (tmp_path / measured["name"]).write_text(json.dumps(measured["result"]))
    rows = measured["result"]["rows"]
    assert {(row["library"].split()[0], row["threads"]) for row in rows} >= {("onnxruntime-web", 1)}
    for row in rows:
        assert row["ms"]["runs"] >= 50
        assert 0 < row["ms"]["least"] <= row["ms"]["p50"] <= row["ms"]["p90"]
        assert row["golden"]["max_difference"] <= row["golden"]["tolerance"]
        assert row["device"]["user_agent"]
    assert report.main(["--html", str(tmp_path / "page.html"), "--results", str(tmp_path)]) == 0
    assert "ONNX Runtime Web" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_webgpu_gives_the_golden_scores(tmp_path: Path, vendor: Path, exported: Path, key: Path) -> None:
    """On SwiftShader, a GPU in software: what it computes is checked, what it takes is nobody's time."""
    from export import to_tflite

    assert to_tflite.main(["--out", str(tmp_path)]) == 0
    folder = tmp_path / "detector"
    files = [str(exported), str(tmp_path / "fscnn.tflite")]
    assert embed.main(["web", *files, "--into", str(folder), "--key", str(key)]) == 0
    outcomes = browser("useTheGpu", folder, webgpu=True)["outcomes"]
    for runtime in ("ort-webgpu", "litert-webgpu"):
        assert outcomes[runtime].get("max_difference", math.inf) <= GOLDEN_TOLERANCE, outcomes[runtime]


# The result of a device


def row_of_a_page() -> dict[str, Any]:
    return {
        "label": "fscnn.onnx ort-wasm",
        "file": "fscnn.onnx",
        "runtime": "ONNX Runtime Web, WebAssembly",
        "library": "onnxruntime-web 1.30.0",
        "threads": 2,
        "golden": {"clips": 5, "max_difference": 3.4e-05, "tolerance": 1e-4},
        "device": {"manufacturer": None, "model": "Phone | 1", "chip": "arm"},
        "ms": {"p50": 12.3, "p90": 14.0, "least": 11.1, "runs": 100},
        "load_ms": 331.0,
        "first_run_ms": None,
        "steady": False,
    }


def test_the_report_tells_pages_from_other_runs() -> None:
    conditions = {"date": "2026-11-21T09:00:00+00:00", "protocol": {"where": "browser"}}
    table = result_tables.on_device(
        {"kind": "on-device", "conditions": conditions, "rows": [row_of_a_page()]}
    )
    line = table.splitlines()[2]
    assert line.startswith(
        "| Phone / 1 arm | fscnn.onnx | onnxruntime-web 1.30.0, ONNX Runtime Web, WebAssembly | 2 |"
    )
    assert "| 12 ms | 14 ms | 11 ms |  | 331 ms | 3e-05 | never steady |" in line
    assert "In a browser" in table
    del conditions["protocol"]
    assert "In a browser" not in result_tables.on_device(
        {"conditions": conditions, "rows": [row_of_a_page()]}
    )
