// Which runtime to use: all that can run here are measured once, and the fastest is kept in mind.
import { RUNTIMES } from "../engine/runtimes.js";
import { Engine } from "./engine.js";
import { recall, remember } from "./memory.js";

const MOST_THREADS = 4; // more gain nothing on a network of this size, and phones have four fast cores at most
const WARM_RUNS = 4;
const TIMED_RUNS = 12;
const RETRY_MS = 7 * 24 * 3600 * 1000; // what failed may have lacked the network, or a later browser

/**
 * Returns what can run the detector's files here, the files' own order first.
 * @param {string[]} files of detector.json
 * @param {boolean} gpu whether there is a WebGPU adapter
 */
export function candidatesFor(files, gpu) {
  const most = crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
  const place = (runtime) => files.findIndex((file) => file.endsWith(RUNTIMES[runtime].suffix));
  return Object.keys(RUNTIMES)
    .filter((runtime) => place(runtime) >= 0 && (gpu || !RUNTIMES[runtime].gpu))
    .sort((a, b) => RUNTIMES[a].gpu - RUNTIMES[b].gpu || place(a) - place(b))
    .flatMap((runtime) => (RUNTIMES[runtime].gpu || most === 1 ? [1] : [most, 1]).map((threads) => ({ runtime, threads })));
}

/** Returns whether this browser has a GPU to compute on. */
export async function hasGpu() {
  try {
    return Boolean(await navigator.gpu?.requestAdapter());
  } catch {
    return false;
  }
}

export const nameOf = ({ runtime, threads }) => `${runtime}-${threads}`;

/** Returns the fastest candidate of an earlier measurement of this model, if it still is one. */
export function rememberedChoice(model, candidates) {
  const times = recall("times", {})[model];
  if (!times) return null;
  const known = candidates.filter((candidate) => times[nameOf(candidate)] > 0);
  return known.sort((a, b) => times[nameOf(a)] - times[nameOf(b)])[0] ?? null;
}

/** Returns whether a candidate was measured here, or did not run so lately that it is left alone. */
export function isMeasured(model, candidate, now = Date.now()) {
  const time = rememberedTimes(model)[nameOf(candidate)];
  return time > 0 || time < RETRY_MS - now;
}

/** Keeps the median in ms of a candidate; where it is null, since it does not run, when that was, as less than 0. */
export function rememberTime(model, candidate, ms, now = Date.now()) {
  const times = recall("times", {});
  remember("times", { ...times, [model]: { ...times[model], [nameOf(candidate)]: ms ?? -now } });
}

export function rememberedTimes(model) {
  return recall("times", {})[model] ?? {};
}

/**
 * Returns the median time in ms of a window, in a worker of its own; null where it does not run right.
 * Rejects only with what is final: the detector's file for it was changed.
 */
export async function tryOut(candidate, open) {
  const engine = new Engine();
  try {
    await open(engine, candidate);
    await engine.call("measure", { runs: WARM_RUNS });
    const times = await engine.call("measure", { runs: TIMED_RUNS });
    return times.sort((a, b) => a - b)[times.length >> 1];
  } catch (error) {
    if (error.isFinal) throw error; // the detector itself is wrong
    console.info(`${nameOf(candidate)} does not run here: ${error.message}`);
    return null;
  } finally {
    engine.close();
  }
}
