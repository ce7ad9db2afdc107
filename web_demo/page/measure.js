// "Measure this device": every runtime that works here, timed as benchmarks/on_device.py times phones, and the
// result as a file of the same kind.
import { BLOCK_RUNS, MOST_BLOCKS, figures, isSteady } from "../engine/statistics.js";
import { Engine } from "./engine.js";

const RUNS = 10; // a call, so that progress moves; a block is several

/**
 * Times one candidate in a worker of its own: golden scores first, then blocks until two in a row agree.
 * @param {object} candidate
 * @param {(engine: Engine, candidate: object) => Promise<object>} open opens the candidate and checks it
 * @param {(sentence: string) => void} say
 * @returns {Promise<object>} a row of the result; {failed} where it does not run right
 */
export async function measureCandidate(candidate, open, say) {
  const engine = new Engine();
  try {
    const start = performance.now();
    const facts = await open(engine, candidate);
    const cold = performance.now() - start;
    const blocks = [];
    while (blocks.length < MOST_BLOCKS && !isSteady(blocks)) {
      say(`block ${blocks.length + 1} of at most ${MOST_BLOCKS}`);
      blocks.push(await runBlock(engine));
    }
    return row(candidate, facts, blocks, cold);
  } catch (error) {
    return { ...candidate, failed: error.message };
  } finally {
    engine.close();
  }
}

async function runBlock(engine) {
  const times = [];
  while (times.length < BLOCK_RUNS) times.push(...(await engine.call("measure", { runs: RUNS })));
  return times;
}

function row(candidate, facts, blocks, cold) {
  const { manifest, golden } = facts;
  return {
    label: `${facts.name} ${candidate.runtime}`,
    file: facts.name,
    bytes: manifest.file.bytes,
    sha256: manifest.file.sha256,
    model: manifest.model,
    model_version: manifest.modelVersion,
    runtime: facts.label,
    library: facts.library,
    runner: "web_demo",
    threads: candidate.threads,
    pinned_to: null,
    golden: golden && { clips: golden.clips, max_difference: golden.max_difference, tolerance: golden.tolerance },
    load_ms: facts.load_ms,
    verify_ms: facts.verify_ms,
    cold_ms: cold,
    first_run_ms: golden?.first_ms ?? null,
    peak_rss_mib: null, // no page is told
    ...figures(blocks),
  };
}

/** Returns what the browser tells of the device; null for what it does not. */
export async function describeDevice() {
  const { userAgent, userAgentData, hardwareConcurrency, deviceMemory } = navigator;
  const told = await userAgentData?.getHighEntropyValues?.(["model", "platform", "platformVersion", "architecture"]).catch(() => null);
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return {
    manufacturer: null,
    model: told?.model || userAgentData?.platform || navigator.platform || "unknown device",
    chip: told?.architecture || null,
    platform: told ? `${told.platform} ${told.platformVersion}`.trim() : null,
    mobile: userAgentData?.mobile ?? null,
    user_agent: userAgent,
    hardware_concurrency: hardwareConcurrency ?? null,
    device_memory_gib: deviceMemory ?? null,
    gpu: adapter?.info ? { vendor: adapter.info.vendor, architecture: adapter.info.architecture } : null,
    cross_origin_isolated: crossOriginIsolated,
  };
}

/** Returns what changes from one minute to the next: the battery, where the browser tells; visibility. */
export async function stateOf() {
  const battery = await navigator.getBattery?.().catch(() => null);
  return {
    battery_percent: battery ? Math.round(100 * battery.level) : null,
    charging: battery?.charging ?? null,
    battery_celsius: null,
    thermal_status: null,
    visible: document.visibilityState === "visible",
  };
}

/** Returns the result file of rows that were measured, as benchmarks/report.py reads it. */
export function resultOf(rows, device, before, after, versions) {
  const measured = rows.filter((r) => !r.failed);
  return {
    schema: 1,
    kind: "on-device",
    conditions: {
      date: `${new Date().toISOString().slice(0, 19)}+00:00`,
      packages: versions,
      protocol: { runs: BLOCK_RUNS, blocks: MOST_BLOCKS, where: "browser" },
      failed: rows.filter((r) => r.failed).map(({ runtime, threads, failed }) => ({ runtime, threads, failed })),
    },
    rows: measured.map((r) => ({ ...r, device, before, after })),
  };
}
