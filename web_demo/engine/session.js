// What the page asks of a worker: open a runtime, listen, measure. One runtime for the life of the worker.
//
// Calls are {id, call, ...} and get {id, result} or {id, problem, isKnown}; word of a stream is {word} or {level}.
import { checkGolden, loadDetector, loadGolden } from "./detector.js";
import { Listener } from "./listener.js";
import { rulesOf } from "./manifest.js";
import { Problem, sentenceOf } from "./problem.js";
import { RUNTIMES, libraryVersions } from "./runtimes.js";

const LATE_SECONDS = 0.5; // of audio that may wait before windows are skipped: one hop
const PIECE = 16384; // frames of a recording between two looks at whether to go on
const BUSY_MS = 100; // of a recording heard at a stretch, before the page may call

let read, detector, golden, score, core; // in the order in which they come to be
let listening; // {listener, channels, queue, queued, busy, stopped}

const CALLS = { load, loadChecks, open, check, warmUp, measure, listen, hear, finish, stop, fetched };

/** Answers one call of the page. */
export async function answer({ id, call, ...args }) {
  try {
    postMessage({ id, result: await CALLS[call](args) });
  } catch (error) {
    if (!(error instanceof Problem)) console.error(error);
    postMessage({ id, problem: String(error?.message ?? error), isKnown: error instanceof Problem });
  }
}

/** Verifies the detector folder and loads the file for a runtime; opens nothing. */
async function load({ folder, runtime, accepted }) {
  read = reader(folder);
  detector = await loadDetector(read, { suffixes: [RUNTIMES[runtime].suffix], accepted });
  const { name, manifest } = detector;
  return { name, manifest, rules: rulesOf(manifest) };
}

/** Loads and verifies the golden clips; says whether there are any. */
async function loadChecks() {
  golden = await loadGolden(read, detector);
  return golden !== null;
}

/** Opens the runtime on what was loaded. */
async function open({ runtime, threads }) {
  const row = RUNTIMES[runtime];
  const start = performance.now();
  const [open, versions, compiled] = await Promise.all([row.open(detector, threads), libraryVersions(), compileCore()]);
  [score, core] = [open, compiled];
  return { label: row.label, library: `${row.library} ${versions[row.library]}`, load_ms: performance.now() - start };
}

/** Runs once on silence: the first run of a runtime is slow, and should not be a speaker's. */
async function warmUp() {
  await score(new Float32Array(detector.manifest.input.samples));
}

/** Scores the golden clips; returns how far off the worst was, and how long the first run took. */
async function check() {
  const start = performance.now();
  await score(golden.clips[0]);
  const first = performance.now() - start;
  const difference = await checkGolden(score, golden, detector.name);
  return { clips: golden.clips.length, max_difference: difference, tolerance: golden.tolerance, first_ms: first };
}

/** Times `runs` runs over the golden clips in turn; the page asks for block after block. */
async function measure({ runs }) {
  const clips = golden?.clips ?? [new Float32Array(detector.manifest.input.samples)];
  const times = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await score(clips[i % clips.length]);
    times.push(performance.now() - start);
  }
  return times;
}

/** Begins a stream; audio comes by `hear`, or from a capture worklet by its own port. */
function listen({ rate, channels, port, live }) {
  const state = { channels, queue: [], queued: 0, busy: null, stopped: false };
  const word = (facts) => postMessage({ word: facts });
  const isLate = () => live && state.queued > LATE_SECONDS * rate;
  state.listener = new Listener({ core, manifest: detector.manifest, score, rate, channels, tell: word, isLate });
  listening = state;
  if (port) port.onmessage = ({ data }) => enqueue(state, data).catch((error) => fail(state, error));
}

/** Ends a stream that cannot go on: what is left of it would fail alike. */
function fail(state, error) {
  if (state.stopped) return;
  state.stopped = true;
  postMessage({ failed: sentenceOf(error) });
}

/** Takes a whole recording, piece by piece; says whether it was heard to its end. */
async function hear({ samples }) {
  const state = listening, step = PIECE * state.channels;
  let paused = performance.now();
  for (let at = 0; at < samples.length && !state.stopped; at += step) {
    await enqueue(state, { samples: samples.subarray(at, at + step) });
    if (performance.now() - paused < BUSY_MS) continue;
    await new Promise((resolve) => setTimeout(resolve)); // a runtime need not let any message in
    paused = performance.now();
  }
  return !state.stopped;
}

/** Ends the stream; the last words come before the answer. */
async function finish() {
  const state = listening;
  if (!state || state.stopped) return;
  await state.busy;
  state.stopped = true; // what the microphone still sends is not heard any more
  await state.listener.finish();
}

/** Leaves the stream without its last words. */
function stop() {
  if (listening) listening.stopped = true;
}

/** Adds a piece, and works the queue off unless that is being done. */
function enqueue(state, piece) {
  if (state.stopped) return Promise.resolve();
  state.queue.push(piece);
  state.queued += (piece.samples?.length ?? 0) / state.channels;
  state.busy ??= work(state).finally(() => (state.busy = null));
  return state.busy;
}

async function work(state) {
  while (state.queue.length && !state.stopped) {
    const { samples, lost } = state.queue.shift();
    state.queued -= (samples?.length ?? 0) / state.channels;
    if (lost) await state.listener.gap(lost);
    if (samples) await state.listener.hear(samples);
    postMessage({ level: { power: state.listener.stream.power, time: state.listener.stream.time } });
  }
}

/** Returns the addresses of everything fetched here, for the page to keep. */
function fetched() {
  return performance.getEntriesByType("resource").map((entry) => entry.name);
}

function compileCore() {
  return WebAssembly.compileStreaming(fetch(new URL("../vendor/spoof_core.wasm", import.meta.url)));
}

function reader(folder) {
  return async (name) => {
    let response;
    try {
      response = await fetch(new URL(name, folder));
    } catch {
      throw new Problem(`The detector's file ${name} cannot be fetched; is the server still there?`);
    }
    return response.ok ? new Uint8Array(await response.arrayBuffer()) : null;
  };
}
