// Reads a model's manifest: untrusted JSON, checked field by field before anything of it is believed.
//
// The same rules as antispoof/manifest_reader.py and, for what follows from it, runtimes/stream.py.
import { SAMPLE_RATE } from "./core.js";
import { Problem } from "./problem.js";

const SCHEMA = 1;
const MAX_BYTES = 1 << 20;
const MAX_SAMPLES = 960000; // SPOOF_MAX_WINDOW
const MAX_TEXT = 2000;
const MAX_LLR = 999999; // beyond any calibration: the million that the core takes, less a threshold's margin
const HOP_SECONDS = 0.5;
const MIN_SPEECH_SECONDS = 1;
const SMOOTHING_SECONDS = 3;
const MARGIN = 0.5; // of log-likelihood ratio on either side of the threshold; none without a calibration
const MIN_DURATION_SECONDS = 1;

const FIXED = {
  "input.sample_rate": SAMPLE_RATE,
  "input.dtype": "float32",
  "input.length_rule": "tile when shorter, head when longer",
  "output.dtype": "float32",
  "output.polarity": "higher is bona fide",
  "output.labels": ["spoof", "bonafide"],
};

/**
 * Returns the manifest in `bytes`.
 * @param {Uint8Array} bytes
 * @param {string} name of the file, for the sentence
 */
export function parseManifest(bytes, name) {
  const refuse = (problem) => new Problem(`${name} ${problem}; put the detector in place again.`);
  if (bytes.length > MAX_BYTES) throw refuse("is larger than a manifest can be");
  let facts;
  try {
    facts = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw refuse("is not JSON");
  }
  if (!isObject(facts)) throw refuse("is not a manifest");
  if (facts.schema !== SCHEMA) throw refuse(`is of another schema than ${SCHEMA}`);
  const read = reader(facts, refuse);
  for (const [path, wanted] of Object.entries(FIXED)) {
    if (JSON.stringify(read.any(path)) !== JSON.stringify(wanted)) throw refuse(`says something else in ${path} than ${JSON.stringify(wanted)}`);
  }
  const manifest = {
    model: read.text("model"),
    modelVersion: facts.model_version === undefined ? 0 : read.integer("model_version", 0, Number.MAX_SAFE_INTEGER),
    licence: read.text("licence"),
    format: read.text("format"),
    precision: read.text("precision"),
    recipe: read.text("recipe"),
    input: { name: read.text("input.name"), samples: read.integer("input.samples", 160, MAX_SAMPLES) },
    output: { name: read.text("output.name") },
    file: { name: read.text("file.name"), bytes: read.integer("file.bytes", 1, 2 ** 31), sha256: read.sha256("file.sha256") },
    goldenSha256: facts.golden_sha256 == null ? null : read.sha256("golden_sha256"),
    calibration: facts.calibration == null ? null : { scale: read.number("calibration.scale"), offset: read.number("calibration.offset") },
    thresholds: readThresholds(facts, refuse),
  };
  const batch = read.any("input.batch");
  if (batch !== null && batch !== 1) throw refuse("is of a model that does not take one clip at a time");
  const { scale, offset } = manifest.calibration ?? { scale: 1, offset: 0 };
  if (!(scale > 0)) throw refuse("has a calibration that would turn its scores round");
  const ratios = [scale, offset, ...manifest.thresholds.map((point) => scale * point.score + offset)];
  if (!ratios.every((ratio) => Math.abs(ratio) <= MAX_LLR)) throw refuse("has a calibration or a threshold that is beyond all bounds");
  return manifest;
}

/** Returns the streaming core's configuration for audio of this rate. */
export function streamConfig(manifest, rate, channels) {
  const window = manifest.input.samples;
  const least = Math.min(MIN_SPEECH_SECONDS * SAMPLE_RATE, window);
  return { sample_rate: rate, channels, window, hop: HOP_SECONDS * SAMPLE_RATE, first: least, min_speech: least, gate: 1 };
}

/** Returns how scores become decisions, or null where the manifest holds nothing to decide by. */
export function rulesOf(manifest) {
  const { calibration } = manifest, point = manifest.thresholds[0];
  if (!calibration && !point) return null;
  const { scale, offset } = calibration ?? { scale: 1, offset: 0 };
  const middle = point ? scale * point.score + offset : 0;
  const margin = calibration ? MARGIN : 0;
  return {
    scale,
    offset,
    time_constant: SMOOTHING_SECONDS * SAMPLE_RATE,
    enter: middle - margin,
    exit: middle + margin,
    min_duration: MIN_DURATION_SECONDS * SAMPLE_RATE,
  };
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function reader(facts, refuse) {
  const any = (path) => {
    let value = facts;
    for (const key of path.split(".")) {
      if (!isObject(value) || !Object.hasOwn(value, key)) throw refuse(`says nothing of ${path}`);
      value = value[key];
    }
    return value;
  };
  const checked = (path, isRight) => {
    const value = any(path);
    if (!isRight(value)) throw refuse(`says what cannot be of ${path}`);
    return value;
  };
  return {
    any,
    text: (path) => checked(path, (v) => typeof v === "string" && v.length <= MAX_TEXT),
    number: (path) => checked(path, Number.isFinite),
    integer: (path, least, most) => checked(path, (v) => Number.isSafeInteger(v) && v >= least && v <= most),
    sha256: (path) => checked(path, (v) => typeof v === "string" && /^[0-9a-f]{64}$/.test(v)),
  };
}

function readThresholds(facts, refuse) {
  if (!Array.isArray(facts.thresholds)) throw refuse("holds no list of thresholds");
  return facts.thresholds.map((point) => {
    if (!isObject(point) || typeof point.name !== "string" || !Number.isFinite(point.score)) throw refuse("holds a threshold that is none");
    return { name: point.name, score: point.score };
  });
}
