// The page's flow: open a runtime, listen or take a recording, look in the background for a faster runtime.
import { Problem, sentenceOf } from "../engine/problem.js";
import { RUNTIMES } from "../engine/runtimes.js";
import { candidatesFor, hasGpu, isMeasured, nameOf, rememberTime, rememberedChoice, rememberedTimes, tryOut } from "./choice.js";
import { Engine } from "./engine.js";
import { measureCandidate, describeDevice, resultOf, stateOf } from "./measure.js";
import { recall, remember } from "./memory.js";
import { openMicrophone } from "./microphone.js";
import { decodeRecording } from "./recording.js";
import { conclusionOf, runtimeInWords, verdictOf, whatIsMissing } from "./sentences.js";
import { addTimes, addWord, clearScores, clearTimes, elements, enable, setText, showLevel, showOpened, showProblem, showVerdict } from "./view.js";

const FOLDER = new URL("../detector/", import.meta.url).href;
const READY = { state: "ready", decision: "Ready to listen", detail: "Everything is computed on this device." };
const MUTED = "The microphone is muted, by its switch or by the system, so there is only silence to hear; unmute it to go on.";

/** What the page is doing: "idle", "listening", "paused", "decoding", "hearing" or "measuring"; nothing until it is ready. */
let doing = null;
let engine = null; // the one in use
let facts = null; // what it said when it was opened
let candidates = [];
let microphone = null;
let stream = null; // {last, scored, decided, times, isLive}

/**
 * Verifies the detector in an engine, opens a candidate on it, and checks the golden scores: always, or unless
 * they matched here before. Errors that no other candidate would mend are marked final.
 */
async function open(target, candidate, { always = false } = {}) {
  const loaded = await final(target.call("load", { folder: FOLDER, ...candidate, accepted: recall("accepted", {}) }));
  const { model, modelVersion, file } = loaded.manifest;
  const key = `${nameOf(candidate)} ${file.sha256} ${navigator.userAgent}`;
  const isDue = always || !recall("golden", {})[key];
  const hasGolden = isDue && (await final(target.call("loadChecks")));
  const runtime = await target.call("open", candidate);
  const golden = hasGolden ? await target.call("check") : await target.call("warmUp");
  remember("accepted", { ...recall("accepted", {}), [model]: modelVersion });
  remember("golden", { ...recall("golden", {}), [key]: true });
  return { ...candidate, ...loaded, ...runtime, golden: golden ?? null, isDue };
}

async function final(promise) {
  try {
    return await promise;
  } catch (error) {
    throw Object.assign(error, { isFinal: error instanceof Problem });
  }
}

/** Opens the fastest known candidate, else the first that works. */
async function start() {
  const missing = whatIsMissing();
  if (missing) throw new Problem(missing);
  candidates = candidatesFor(await listedFiles(), await hasGpu());
  if (!candidates.length) throw new Problem("None of the detector's files runs in a browser; put an .onnx or .tflite in place (antispoof embed web).");
  const known = rememberedChoice(recall("model", ""), candidates);
  let refusal = null;
  for (const candidate of known ? [known, ...candidates.filter((c) => c !== known)] : candidates) {
    try {
      await use(candidate);
      return;
    } catch (error) {
      if (error.isFinal) throw error;
      refusal ??= error;
    }
  }
  throw refusal;
}

async function listedFiles() {
  const response = await fetch(`${FOLDER}detector.json`).catch(() => null);
  if (!response?.ok) throw new Problem("There is no detector here yet; put one in place (antispoof embed web).");
  const listing = await response.json().catch(() => null);
  if (!Array.isArray(listing?.files)) throw new Problem("detector.json is not a list of model files; put the detector in place again (antispoof embed web).");
  return listing.files.map(String);
}

/** Makes a candidate the one in use, unless that is not wanted any more once it is open. */
async function use(candidate, isWanted = () => true) {
  const next = new Engine({ onWord: hearWord, onLevel: showLevel, onFailed: reopen });
  let opened;
  try {
    opened = await open(next, candidate);
  } catch (error) {
    next.close();
    throw error;
  }
  if (!isWanted()) return next.close();
  facts = opened;
  engine?.close();
  engine = next;
  if (!stream) clearScores(facts.rules, Boolean(facts.manifest.calibration), null);
  remember("model", facts.manifest.model);
  showOpened(facts, choiceInWords());
}

function choiceInWords() {
  const times = Object.values(rememberedTimes(facts.manifest.model)).filter((ms) => ms > 0);
  return times.length > 1 ? `fastest of ${times.length} measured here` : null;
}

function become(state) {
  doing = state;
  const isIdle = state === "idle", isLive = state === "listening" || state === "paused", isBusy = isLive || state === "hearing";
  setText(elements.listen, isBusy ? "Stop" : "Listen");
  setText(elements.pause, state === "paused" ? "Resume" : "Pause");
  enable({ listen: isIdle || isBusy, pause: isLive, choose: isIdle, measure: isIdle });
}

/** Runs one step of the flow; whatever it throws is shown as a sentence. */
async function attempt(step) {
  showProblem(null);
  try {
    await step();
  } catch (error) {
    if (!(error instanceof Problem)) console.error(error);
    showProblem(sentenceOf(error));
    showVerdict(READY);
    await leave();
  }
}

/** Lets go of the microphone and of the stream. */
async function leave() {
  await microphone?.close();
  microphone = null;
  await engine.call("stop");
  become("idle");
}

function begin(isLive, seconds) {
  stream = { last: null, scored: 0, decided: { undecided: 0, bonafide: 0, spoof: 0 }, times: [], isLive };
  clearScores(facts.rules, Boolean(facts.manifest.calibration), seconds);
}

function hearWord(word) {
  if (!stream) return;
  if (word.status === "scored") {
    stream.last = word;
    stream.scored += 1;
    stream.decided[word.decision] += 1;
    stream.times = [...stream.times.slice(-199), word.ms];
  }
  addWord(word, stream.times);
  if (word.status !== "skipped") showVerdict(verdictOf(word, facts.rules, stream.isLive));
}

async function listen() {
  become(null);
  microphone = await openMicrophone(lose, (isMuted) => showProblem(isMuted ? MUTED : null));
  begin(true, null);
  showVerdict({ state: "quiet", decision: "Listening", detail: "It takes a second of speech to judge." });
  setText(elements.source, `${microphone.track.label || "Microphone"}, ${microphone.rate} Hz`);
  await engine.call("listen", { rate: microphone.rate, channels: 1, port: microphone.port, live: true }, [microphone.port]);
  become("listening");
}

async function stopListening() {
  become(null);
  await microphone.close();
  microphone = null;
  await engine.call("finish");
  showVerdict(stream.scored ? verdictOf(stream.last, facts.rules, false) : { state: "quiet", decision: "Not enough speech", detail: "It takes a second of speech to judge." });
  become("idle");
  improve();
}

/** Ends a stream that cannot go on, and says why. */
async function lose(sentence) {
  if (doing !== "listening" && doing !== "paused") return showProblem(sentence);
  await stopListening();
  showProblem(sentence);
}

/** Ends a stream whose runtime failed, and opens that anew: one that has lost its GPU, say, would fail again. */
async function reopen(sentence) {
  const wasLive = doing === "listening" || doing === "paused";
  await lose(sentence);
  if (!wasLive) return;
  become(null);
  const { runtime, threads } = facts;
  await use({ runtime, threads }).catch(() => showProblem(`${sentence} Load the page again.`));
  become("idle");
}

async function pause() {
  if (doing === "listening") {
    become("paused");
    await microphone.pause();
    return;
  }
  await microphone.resume();
  become("listening");
}

async function take(file) {
  if (!file || doing !== "idle") return;
  become("decoding");
  showVerdict({ state: "ready", decision: "Reading the recording", detail: file.name });
  const recording = await decodeRecording(file);
  begin(false, recording.seconds);
  setText(elements.source, `${file.name}: ${recording.seconds.toFixed(1)} s, ${recording.rate} Hz, ${recording.channels === 1 ? "mono" : `${recording.channels} channels`}`);
  const { samples, rate, channels } = recording;
  await engine.call("listen", { rate, channels, live: false });
  become("hearing");
  const isWhole = await engine.call("hear", { samples }, [samples.buffer]);
  await engine.call("finish");
  showVerdict(conclusionOf(stream, facts.rules, isWhole ? file.name : `${file.name} up to ${elements.clock.textContent}`));
  become("idle");
}

/** Ends the hearing of a recording, which then says what it came to so far. */
async function stopHearing() {
  await engine.call("stop");
}

/** Measures, while nothing else goes on, the candidates that were not measured here yet; takes the fastest. */
async function improve() {
  const { model } = facts.manifest;
  for (const candidate of candidates) {
    if (isMeasured(model, candidate) || doing !== "idle" || navigator.connection?.saveData) continue;
    const ms = await tryOut(candidate, open).catch((error) => showProblem(error.message) ?? null);
    if (doing !== "idle") return; // it was measured beside other work
    rememberTime(model, candidate, ms);
  }
  await takeFastest();
}

async function takeFastest() {
  const best = rememberedChoice(facts.manifest.model, candidates);
  if (doing !== "idle" || !best) return;
  if (nameOf(best) !== nameOf(facts)) await use(best, () => doing === "idle");
  showOpened(facts, choiceInWords());
  document.body.dataset.settled = "true";
}

async function measure() {
  become("measuring");
  const device = await describeDevice(), before = await stateOf();
  const rows = [];
  elements.download.hidden = true;
  clearTimes();
  for (const candidate of candidates) {
    const name = runtimeInWords({ label: RUNTIMES[candidate.runtime].label, ...candidate });
    const row = await measureCandidate(candidate, (target, c) => open(target, c, { always: true }), (step) => setText(elements.progress, `${name}: ${step}`));
    rows.push(row);
    addTimes(row, name);
    rememberTime(facts.manifest.model, candidate, row.failed ? null : row.ms.p50);
  }
  const after = await stateOf();
  become("idle");
  await takeFastest();
  const versions = Object.fromEntries(rows.filter((row) => row.library).map((row) => row.library.split(" ")));
  offerDownload(resultOf(rows, device, before, after, versions));
  setText(elements.progress, before.visible && after.visible ? "Done." : "Done, but the page was not in front: measure again.");
}

function offerDownload(result) {
  const blob = new Blob([`${JSON.stringify(result, null, 1)}\n`], { type: "application/json" });
  elements.download.href = URL.createObjectURL(blob);
  elements.download.download = `on-device-web-${facts.manifest.model}-${result.conditions.date.slice(0, 10)}.json`;
  elements.download.hidden = false;
}

function listenToControls() {
  elements.listen.onclick = () => attempt({ idle: listen, hearing: stopHearing }[doing] ?? stopListening);
  elements.pause.onclick = () => attempt(pause);
  elements.choose.onclick = () => elements.file.click();
  elements.file.onchange = () => attempt(() => take(elements.file.files[0])).then(() => (elements.file.value = ""));
  elements.measure.onclick = () => attempt(measure);
  const isFile = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    elements.drop.hidden = !isFile(event) || doing !== "idle";
  });
  addEventListener("dragleave", (event) => (elements.drop.hidden = event.relatedTarget !== null ? elements.drop.hidden : true));
  addEventListener("drop", (event) => {
    event.preventDefault();
    elements.drop.hidden = true;
    attempt(() => take(event.dataTransfer.files[0]));
  });
}

/** Lets the page work without a network from now on. */
async function keepForLater() {
  if (!navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register("service-worker.js");
    const { active } = await navigator.serviceWorker.ready;
    navigator.serviceWorker.onmessage = () => (document.body.dataset.kept = "true");
    const fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
    active.postMessage({ urls: [...fetched, ...(await engine.call("fetched"))] });
  } catch (error) {
    console.info(`not kept for later: ${error.message}`);
    setText(elements.offline, "This browser keeps no pages; it needs the network each time.");
  }
}

try {
  listenToControls();
  await start();
  showVerdict(READY);
  become("idle");
  keepForLater();
  improve();
} catch (error) {
  if (!(error instanceof Problem)) console.error(error);
  showVerdict({ state: "ready", decision: "Not able to listen", detail: "Nothing was opened." });
  showProblem(sentenceOf(error));
}
