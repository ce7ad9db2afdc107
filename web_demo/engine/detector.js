// Loads a detector folder in the one order in which it can be trusted:
//
//   1 detector.json: which files there are      2 the manifest's signature, by the pinned key
//   3 what the manifest says                    4 the model file's size and sha256
//   5 no older version than the last one used   6 the golden scores, once a runtime is open
//
// Whatever fails ends in one sentence, and nothing that comes later is looked at.
import { parseManifest } from "./manifest.js";
import { Problem } from "./problem.js";
import { isSigned, parseKey, sha256 } from "./signature.js";

const SCHEMA = 1;
const MAX_FILES = 20;
const MAX_CLIPS = 1000;
const AGAIN = "put the detector in place again (antispoof embed web)";

/**
 * @callback Read
 * @param {string} name of a file in the detector folder
 * @returns {Promise<Uint8Array | null>} its content, null where there is none
 */

/**
 * Returns the first model file that can be run: its name, manifest and checked content.
 * @param {Read} read
 * @param {object} options
 * @param {string[]} options.suffixes of files that can be run here, such as [".onnx"]
 * @param {Record<string, number>} options.accepted the highest version used so far, by model name
 */
export async function loadDetector(read, { suffixes, accepted }) {
  const { files, name } = await chooseFile(read, suffixes); // 1
  const manifestName = `${name}.manifest.json`;
  const bytes = await need(read, manifestName);
  const key = parseKey(await need(read, "trusted-key.pub"), "trusted-key.pub");
  if (!(await isSigned(bytes, await need(read, `${manifestName}.sig`), key))) { // 2
    throw new Problem(`${manifestName}, its signature or the trusted key was changed, for they do not belong together; ${AGAIN}.`);
  }
  const manifest = parseManifest(bytes, manifestName); // 3
  if (manifest.file.name !== name) throw new Problem(`${manifestName} belongs to ${manifest.file.name}, not to ${name}; ${AGAIN}.`);
  const content = await need(read, name);
  if (content.length !== manifest.file.bytes || (await sha256(content)) !== manifest.file.sha256) { // 4
    throw new Problem(`${name} is not the file that its manifest was signed for: it was changed or damaged; ${AGAIN}.`);
  }
  const newest = accepted[manifest.model] ?? 0;
  if (manifest.modelVersion < newest) { // 5
    throw new Problem(`${name} is version ${manifest.modelVersion} of ${manifest.model}, older than version ${newest} already used here; ${AGAIN}.`);
  }
  return { files, name, manifest, content };
}

/** Returns the golden clips and scores of a loaded detector; null where it has none and promises none. */
export async function loadGolden(read, { name, manifest }) {
  const scoresName = `${name}.golden.json`, clipsName = `${name}.golden.f32`;
  const bytes = await read(scoresName);
  if (!bytes && manifest.goldenSha256 === null) return null;
  const refuse = (file) => new Problem(`${file} is missing or was changed, so the model cannot be checked; ${AGAIN}.`);
  if (!bytes || (manifest.goldenSha256 !== null && (await sha256(bytes)) !== manifest.goldenSha256)) throw refuse(scoresName);
  const golden = parseGolden(bytes, manifest.input.samples);
  if (!golden) throw refuse(scoresName);
  const content = await read(clipsName);
  const samples = manifest.input.samples;
  if (!content || content.length !== 4 * samples * golden.scores.length || (await sha256(content)) !== golden.sha256) throw refuse(clipsName);
  const clips = golden.scores.map((_, i) => floats(content, 4 * samples * i, samples));
  return { clips, scores: golden.scores, tolerance: golden.tolerance };
}

/**
 * Scores the golden clips and returns how far off the worst was. // 6
 * @param {(window: Float32Array) => Promise<number>} score
 */
export async function checkGolden(score, golden, name) {
  let worst = 0;
  for (const [i, clip] of golden.clips.entries()) {
    const difference = Math.abs((await score(clip)) - golden.scores[i]);
    if (!(difference <= golden.tolerance)) {
      throw new Problem(`${name} scores golden clip ${i + 1} of ${golden.clips.length} wrongly here (off by ${difference.toPrecision(2)}, allowed is ${golden.tolerance}): this browser does not compute it right.`);
    }
    worst = Math.max(worst, difference);
  }
  return worst;
}

async function need(read, name) {
  const bytes = await read(name);
  if (!bytes) throw new Problem(`The detector's file ${name} is missing; ${AGAIN}.`);
  return bytes;
}

async function chooseFile(read, suffixes) {
  const bytes = await read("detector.json");
  if (!bytes) throw new Problem(`There is no detector here yet; ${AGAIN}.`);
  const files = parseListing(bytes);
  if (!files) throw new Problem(`detector.json is not a list of model files of schema ${SCHEMA}; ${AGAIN}.`);
  const name = files.find((file) => suffixes.some((suffix) => file.endsWith(suffix)));
  if (!name) throw new Problem(`None of the detector's files (${files.join(", ")}) runs here; it takes one in ${suffixes.join(" or ")}.`);
  return { files, name };
}

function parseListing(bytes) {
  const facts = parseJson(bytes);
  if (facts?.schema !== SCHEMA || !Array.isArray(facts.files)) return null;
  const isPlain = (file) => typeof file === "string" && /^[\w][\w.+-]{0,199}$/.test(file) && !file.includes("..");
  if (!facts.files.length || facts.files.length > MAX_FILES || !facts.files.every(isPlain)) return null;
  // It has no signature of its own: only the bytes that embed writes are taken.
  const exact = `{"schema": ${SCHEMA}, "files": [${facts.files.map((file) => `"${file}"`).join(", ")}]}\n`;
  return new TextDecoder("latin1").decode(bytes) === exact ? facts.files : null;
}

function parseGolden(bytes, samples) {
  const facts = parseJson(bytes);
  const { scores, tolerance } = facts ?? {};
  const isRight =
    facts?.schema === 1 && Array.isArray(scores) && scores.length > 0 && scores.length <= MAX_CLIPS && scores.every(Number.isFinite) &&
    facts.clips === scores.length && facts.samples === samples && Number.isFinite(tolerance) && tolerance >= 0 && /^[0-9a-f]{64}$/.test(facts.sha256);
  return isRight ? { scores, tolerance, sha256: facts.sha256 } : null;
}

function parseJson(bytes) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return null;
  }
}

function floats(bytes, offset, count) {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, 4 * count);
  return Float32Array.from({ length: count }, (_, i) => view.getFloat32(4 * i, true));
}
