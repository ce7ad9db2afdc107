"""The page's engine in node: the events of its core, to the bit, and windows that come too late."""

from __future__ import annotations

import json
from pathlib import Path

from antispoof.manifest import manifest_path
from tests.manifests import write_manifest
from tests.web.page import REPOSITORY, WEB, node, script

GOLDEN = REPOSITORY / "tests" / "golden"


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


BOUNDS = """
import { readFileSync } from "node:fs";
const [wasm, bounds, manifest] = process.argv.slice(1), text = (path) => readFileSync(path, "utf8");
const core = await WebAssembly.compile(readFileSync(wasm)), outcomes = [];
for (const { scale, offset, score } of JSON.parse(text(bounds))) {
  const facts = JSON.parse(text(manifest));
  facts.calibration = scale === null ? null : { scale, offset, data: "x" };
  facts.thresholds = score === null ? [] : [{ name: "eer", score, data: "x" }];
  try {
    new Judge(new Core(core), rulesOf(parseManifest(new TextEncoder().encode(JSON.stringify(facts)), "m")));
    outcomes.push("taken");
  } catch (error) {
    outcomes.push(error.message);
  }
}
console.log(JSON.stringify(outcomes));
"""


def test_decisions_are_those_that_python_reads(core: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"none")
    write_manifest(tmp_path / "m.onnx", 64_600)
    modules = {"engine/core.js": "{ Core, Judge }", "engine/manifest.js": "{ parseManifest, rulesOf }"}
    outcomes = script(modules, BOUNDS, core, GOLDEN / "bounds.json", manifest_path(tmp_path / "m.onnx"))
    for row, outcome in zip(json.loads((GOLDEN / "bounds.json").read_text()), outcomes, strict=True):
        refused = "beyond all bounds" in outcome or "turn its scores round" in outcome
        assert row["legal"] == (outcome == "taken") != refused, (row, outcome)


def test_another_number_of_scores_than_one_is_a_sentence() -> None:
    code = """
const given = [[], [1.5], [1, 2]].map((data) => {
  try {
    return oneScore(data, { file: { name: "m.onnx" } });
  } catch (error) {
    return error.message;
  }
});
console.log(JSON.stringify(given));
"""
    none, one, two = script({"engine/runtimes.js": "{ oneScore }"}, code)
    assert one == 1.5
    assert [words.partition(" for one window")[0] for words in (none, two)] == [
        "m.onnx gave 0 scores",
        "m.onnx gave 2 scores",
    ]


WORKLET = """
const sent = [];
globalThis.AudioWorkletProcessor = class { port = {}; };
globalThis.registerProcessor = (name, made) => (globalThis.Capture = made);
await import(process.argv[1]);
const capture = new Capture(), hear = (value, blocks) => {
  for (let i = 0; i < blocks; i++, globalThis.currentFrame += 128) {
    capture.process([[new Float32Array(128).fill(value)]]);
  }
};
globalThis.currentFrame = 0;
const port = { postMessage: ({ samples, lost }) => sent.push(lost ?? [...new Set(samples)]) };
capture.port.onmessage({ data: { port } });
hear(1, 3);
capture.port.onmessage({ data: { lost: 5000 } }); // a pause ends; the clock of the samples stood still
hear(2, 16);
globalThis.currentFrame += 256;
hear(3, 16);
console.log(JSON.stringify(sent));
"""


def test_what_a_pause_cuts_is_not_in_one_piece() -> None:
    sent = script({}, WORKLET, (WEB / "page" / "capture-worklet.js").as_uri())
    assert sent == [[1], 5000, [2], 256, [3]]
