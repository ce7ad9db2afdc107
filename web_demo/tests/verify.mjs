// Loads a detector folder as the page does, over and over with something changed each time.
//
// Reads [{file, at, flip} | {file, cut} | {file, missing} | {accepted}, ...] from stdin (no file: nothing is changed)
// and prints for each what came of it: {name, version, sha256} or {problem, isSentence}.
// node verify.mjs FOLDER < changes.json
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { loadDetector, loadGolden } from "../engine/detector.js";
import { Problem } from "../engine/problem.js";
import { sha256 } from "../engine/signature.js";

const folder = process.argv[2];
const changes = JSON.parse(readFileSync(0, "utf8"));
const kept = new Map();

function original(name) {
  if (!kept.has(name)) kept.set(name, existsSync(join(folder, name)) ? new Uint8Array(readFileSync(join(folder, name))) : null);
  return kept.get(name);
}

function changed(bytes, { at, flip, cut, missing }) {
  if (missing || !bytes) return null;
  const copy = bytes.slice(0, cut ?? bytes.length);
  if (flip !== undefined) copy[at] ^= flip;
  return copy;
}

async function outcome(change) {
  const read = async (name) => (name === change.file ? changed(original(name), change) : original(name));
  try {
    const detector = await loadDetector(read, { suffixes: change.suffixes ?? [".onnx", ".tflite"], accepted: change.accepted ?? {} });
    await loadGolden(read, detector);
    return { name: detector.name, version: detector.manifest.modelVersion, sha256: await sha256(detector.content) };
  } catch (error) {
    return { problem: error.message, isSentence: error instanceof Problem };
  }
}

const outcomes = [];
for (const change of changes) outcomes.push(await outcome(change));
console.log(JSON.stringify(outcomes));
