"""The page's engine in node: the events of its core, to the bit, and windows that come too late."""

from __future__ import annotations

import json
from pathlib import Path

from tests.web.page import REPOSITORY, node, script

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
