// Puts what is known onto the page; decides nothing.
import { ScoreChart, clock } from "./chart.js";
import { chartInWords, milliseconds, runtimeInWords, signed } from "./sentences.js";

const SAMPLE_RATE = 16000;
const HOP_SECONDS = 0.5; // between windows, as engine/manifest.js has it
const MOST_ROWS = 300;
const METER_FLOOR = -80; // dB
const LOUD = -1.5; // dB of mean power: clipping is near
const WORDS = { bonafide: "genuine", spoof: "synthetic", undecided: "undecided" };

const byId = (id) => document.getElementById(id);

export const elements = Object.fromEntries(
  ["verdict", "decision", "detail", "scale", "problem", "listen", "pause", "choose", "file", "level", "clock", "source", "chart", "windows", "runtime", "latency", "factor", "model", "licence", "checked", "measure", "download", "progress", "times", "offline", "drop"].map((id) => [id, byId(id)]),
);

export const chart = new ScoreChart(elements.chart);

export function showVerdict({ state, decision, detail }) {
  elements.verdict.dataset.state = state;
  setText(elements.decision, decision);
  setText(elements.detail, detail);
}

/** Shows one sentence about what went wrong; nothing where it is null. */
export function showProblem(sentence) {
  elements.problem.hidden = !sentence;
  setText(elements.problem, sentence ?? "");
}

/** Empties chart, table and scale for a new stream. */
export function clearScores(rules, isCalibrated, seconds) {
  chart.reset(rules, isCalibrated ? "log-likelihood ratio" : "score", seconds);
  elements.windows.tBodies[0].replaceChildren();
  elements.scale.classList.remove("on");
  showScale(null);
  elements.chart.setAttribute("aria-label", chartInWords(null, 0));
  for (const name of ["latency", "factor"]) setText(elements[name], "not measured");
}

/** Adds word of a window to chart, table and scale, all in the unit of the thresholds. */
export function addWord(word, times) {
  chart.add(word);
  addRow(word);
  if (word.status !== "scored") return;
  elements.chart.setAttribute("aria-label", chartInWords(word, word.end / SAMPLE_RATE));
  showScale(word.smoothed);
  const sorted = [...times].sort((a, b) => a - b), at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  setLines(elements.latency, milliseconds(at(0.5)), `median of ${times.length}, p90 ${milliseconds(at(0.9))}`);
  const factor = at(0.5) / 1000 / HOP_SECONDS;
  setLines(elements.factor, factor.toFixed(3), `a window every ${HOP_SECONDS} s of speech`);
}

function addRow(word) {
  const row = elements.windows.tBodies[0].insertRow(0);
  const scored = word.status === "scored";
  const cells = scored ? [WORDS[word.decision], signed(word.llr), signed(word.smoothed), milliseconds(word.ms)] : [word.status, "", "", ""];
  for (const text of [`${(word.end / SAMPLE_RATE).toFixed(2)} s`, ...cells]) row.insertCell().textContent = text;
  if (elements.windows.tBodies[0].rows.length > MOST_ROWS) elements.windows.tBodies[0].deleteRow(-1);
}

/** Puts the needle between synthetic and genuine, on the chart's own scale. */
function showScale(value) {
  const [low, high] = chart.range();
  const place = (x) => `${(100 * Math.min(1, Math.max(0, (x - low) / (high - low)))).toFixed(1)}%`;
  const { style } = elements.scale;
  style.setProperty("--at", place(value ?? 0));
  style.setProperty("--enter", place(chart.rules?.enter ?? low));
  style.setProperty("--exit", place(chart.rules?.exit ?? high));
  elements.scale.classList.toggle("on", value !== null);
  elements.scale.hidden = !chart.rules;
}

/** Shows the level of the last 10 ms and how much was heard. */
export function showLevel({ power, time }) {
  const decibels = Math.max(METER_FLOOR, 10 * Math.log10(power + 1e-12));
  elements.level.style.setProperty("--share", String(1 - decibels / METER_FLOOR));
  elements.level.classList.toggle("loud", decibels > LOUD);
  elements.level.setAttribute("aria-valuenow", decibels.toFixed(0));
  elements.level.setAttribute("aria-valuetext", decibels <= METER_FLOOR ? "silent" : `${decibels.toFixed(0)} decibels`);
  setText(elements.clock, clock(time / SAMPLE_RATE));
  chart.reach(time / SAMPLE_RATE);
}

/** Shows what was opened: runtime, model, licence and how it was checked. */
export function showOpened(facts, choice) {
  const { manifest, golden } = facts;
  setLines(elements.runtime, runtimeInWords(facts), `${facts.library}${choice ? `; ${choice}` : ""}`);
  setLines(elements.model, `${manifest.model}, version ${manifest.modelVersion}`, `${facts.name}, ${manifest.recipe === "none" ? manifest.precision : manifest.recipe}, ${(manifest.file.bytes / 1024).toFixed(0)} KiB`);
  setText(elements.licence, manifest.licence);
  const scores = golden ? `${golden.clips} golden scores within ${golden.max_difference.toExponential(1)}` : facts.isDue ? "no golden scores came with it" : "golden scores matched before";
  setLines(elements.checked, "signature and sha256", scores);
}

export function clearTimes() {
  elements.times.hidden = false;
  elements.times.tBodies[0].replaceChildren();
}

/** Adds what came of measuring one runtime. */
export function addTimes(row, name) {
  const line = elements.times.tBodies[0].insertRow();
  line.insertCell().textContent = name;
  if (row.failed) {
    Object.assign(line.insertCell(), { textContent: row.failed, colSpan: 5, className: "why" });
    return;
  }
  const times = [row.ms.p50, row.ms.p90, row.ms.least, row.first_run_ms ?? row.ms.p50, row.load_ms];
  for (const ms of times) line.insertCell().textContent = milliseconds(ms);
}

let pressed = null; // the control that had the focus before it was disabled

/** Says which controls do something now; one that had the focus gets it back, so that its key works again. */
export function enable({ listen = false, pause = false, choose = false, measure = false }) {
  const wanted = { listen, pause, choose, measure };
  const focused = Object.keys(wanted).find((name) => elements[name] === document.activeElement);
  for (const [name, on] of Object.entries(wanted)) elements[name].disabled = !on;
  if (focused) pressed = elements[focused];
  if (!pressed || pressed.disabled) return;
  if (document.activeElement === document.body) pressed.focus({ preventScroll: true });
  pressed = null;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // a screen reader says what is set again
}

function setLines(element, first, second) {
  const small = document.createElement("small");
  small.textContent = second;
  element.replaceChildren(first, small);
}
