// What the page says, in one place: decisions, states, figures.
import { clock } from "./chart.js";

const SAMPLE_RATE = 16000;

/** Returns the state of the verdict for the stylesheet, its headline and the sentence below it. */
export function verdictOf(word, rules, isLive) {
  if (word.status === "not enough speech") {
    const heard = (word.speech / SAMPLE_RATE).toFixed(1);
    return { state: "quiet", decision: "Not enough speech", detail: isLive ? `${heard} s of speech so far; it takes a second to judge. Speak on.` : `Only ${heard} s of speech in this stretch; it takes a second to judge.` };
  }
  if (!rules) return { state: "ready", decision: `Score ${signed(word.score)}`, detail: "This model's manifest holds no threshold, so there are scores and no decisions. Higher is more likely genuine." };
  const since = `Since ${clock(word.since / SAMPLE_RATE)}`;
  const average = `${signed(word.smoothed)} on average`;
  if (word.decision === "bonafide") return { state: "genuine", decision: "Sounds genuine", detail: `${since}. ${average}, genuine from ${signed(rules.exit)}.` };
  if (word.decision === "spoof") return { state: "synthetic", decision: "Sounds synthetic", detail: `${since}. ${average}, synthetic below ${signed(rules.enter)}.` };
  if (!isLive) return { state: "undecided", decision: "Undecided", detail: `${average}; it stayed on no side for a second.` };
  return { state: "undecided", decision: "Undecided yet", detail: `${average}; it has to stay on one side for a second.` };
}

/**
 * Returns what a recording came to, once it was heard: where it was judged both ways, its end says too little.
 * @param {{last: object, scored: number, decided: Record<string, number>}} stream windows, by decision
 */
export function conclusionOf({ last, scored, decided }, rules, name) {
  if (!scored) return { state: "quiet", decision: "Not enough speech", detail: `${name} holds no second of speech, so there is nothing to judge.` };
  const windows = `${scored} ${scored === 1 ? "window" : "windows"}`;
  const { bonafide, spoof } = decided;
  if (bonafide && spoof) return { state: "synthetic", decision: "Sounds synthetic in part", detail: `${name}: of ${windows}, ${spoof} sound synthetic and ${bonafide} genuine. The chart shows where.` };
  const verdict = verdictOf(last, rules, false);
  return { ...verdict, detail: `${name}, ${windows}. ${verdict.detail}` };
}

/** Returns what a screen reader is told of the chart. */
export function chartInWords(word, heard) {
  if (!word) return `Score over time: ${clock(heard)} heard, no window scored yet`;
  return `Score over time: ${clock(heard)} heard, average ${signed(word.smoothed)}`;
}

/** Returns how a runtime and its threads are called. */
export function runtimeInWords({ label, runtime, threads }) {
  if (runtime.endsWith("webgpu")) return label;
  return `${label}, ${threads === 1 ? "1 thread" : `${threads} threads`}`;
}

export function signed(value) {
  return `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(2)}`;
}

/** Returns milliseconds as shortly as their size allows. */
export function milliseconds(ms) {
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

/** Returns the sentence for a browser that lacks something without which nothing runs; null where it is able. */
export function whatIsMissing() {
  if (typeof WebAssembly === "undefined" || typeof BigInt64Array === "undefined") return "This browser has no WebAssembly, which computes everything here; a current Chrome, Edge, Firefox or Safari has it.";
  if (!window.isSecureContext || !crypto.subtle) return "Browsers check signatures and give the microphone only on pages from https or localhost; open this one from there.";
  return null;
}
