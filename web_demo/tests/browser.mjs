// Opens the page in headless Chromium and does what a scenario says: node browser.mjs < task.json
//
// The task: {chromium, python, detector, scenario, wav?, files?, seconds?, width?, height?, scheme?, screenshot?,
// webgpu?, snippet?, samples?}. Serves the page itself, on a free port, and prints one JSON object that tests/web/page.py reads.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const HERE = dirname(fileURLToPath(import.meta.url));
const PATIENCE = 120_000;
const QUIET = ["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const SWIFTSHADER = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan", "--use-vulkan=swiftshader", "--use-angle=swiftshader"];
const SCENARIOS = { listen, hearFiles, stopAFile, goOffline, shareTheOrigin, load, refuse, lackAFile, loseTheMicrophone, loseTheRuntime, pauseAndResume, measure, useTheGpu, lackWebAssembly, runSnippet };

const task = JSON.parse(readFileSync(0, "utf8"));
const isReady = () => document.getElementById("listen").disabled === false;
const isSettled = () => document.body.dataset.settled === "true";
const facts = { requests: [], console: [] };

function microphoneFlags() {
  if (task.refuse) return ["--use-fake-device-for-media-stream", "--deny-permission-prompts"];
  if (!task.wav) return [];
  return ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", `--use-file-for-fake-audio-capture=${task.wav}`];
}

function serve() {
  const server = spawn(task.python, [join(HERE, "../serve.py"), "--port", "0", "--detector", task.detector]);
  server.stderr.on("data", (text) => facts.console.push(`server: ${text}`));
  return new Promise((resolve, reject) => {
    server.stdout.once("data", (text) => resolve({ server, url: String(text).trim() }));
    server.once("exit", (code) => reject(new Error(`serve.py ended with ${code}: ${facts.console.join(" ")}`)));
  });
}

async function openBrowser(profile) {
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: task.chromium,
    headless: true,
    viewport: { width: task.width ?? 1200, height: task.height ?? 900 },
    deviceScaleFactor: (task.width ?? 1200) < 600 ? 2 : 1,
    colorScheme: task.scheme ?? "light",
    permissions: task.refuse ? [] : ["microphone"],
    args: [...QUIET, ...(task.webgpu ? SWIFTSHADER : ["--disable-gpu"]), ...microphoneFlags()],
  });
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(PATIENCE);
  context.on("request", (request) => facts.requests.push(request.url()));
  page.on("console", (message) => facts.console.push(message.text()));
  page.on("pageerror", (error) => facts.console.push(`error: ${error.stack}`));
  return { context, page };
}

/** Returns what the page shows, and the words of the stream in full precision. */
function look(page) {
  return page.evaluate(async () => {
    const { chart } = await import("/page/view.js");
    const text = (id) => document.getElementById(id).textContent.trim();
    return {
      ...Object.fromEntries(["decision", "detail", "problem", "runtime", "model", "licence", "checked", "latency", "factor", "source", "progress"].map((id) => [id, text(id)])),
      state: document.getElementById("verdict").dataset.state,
      canListen: !document.getElementById("listen").disabled,
      isolated: crossOriginIsolated,
      times: JSON.parse(localStorage.getItem("antispoof.times")),
      words: chart.words,
      row: Array.from(document.querySelector("#windows tbody tr")?.cells ?? [], (cell) => cell.textContent),
      canvas: document.getElementById("chart").getAttribute("aria-label"),
      overflow: document.documentElement.scrollWidth > innerWidth,
    };
  });
}

async function opened(page, url) {
  const start = Date.now();
  await page.goto(url);
  await page.waitForFunction(isReady);
  return Date.now() - start;
}

async function screenshot(page) {
  if (task.screenshot) await page.screenshot({ path: task.screenshot, fullPage: true });
}

async function load(page, url) {
  await page.goto(url);
  await page.waitForFunction(() => document.getElementById("verdict").dataset.state !== "loading");
  await screenshot(page);
  return look(page);
}

async function listen(page, url) {
  const ready_ms = await opened(page, url);
  if (task.settle) await page.waitForFunction(isSettled);
  await page.focus("#listen");
  await page.keyboard.press("Enter");
  await page.waitForTimeout(1000 * task.seconds);
  await screenshot(page);
  const heard = await look(page);
  await page.keyboard.press("Enter"); // the same key: the button has kept the focus
  await page.waitForFunction(() => document.getElementById("pause").disabled && !document.getElementById("listen").disabled);
  return { ready_ms, ...heard, after: await look(page) };
}

async function hearFiles(page, url) {
  await opened(page, url);
  const found = [];
  for (const file of task.files) {
    await page.setInputFiles("#file", file);
    await page.waitForFunction(() => !document.getElementById("measure").disabled || document.getElementById("problem").textContent);
    found.push(await look(page));
  }
  await screenshot(page);
  return { files: found };
}

async function stopAFile(page, url) {
  await opened(page, url);
  await page.setInputFiles("#file", task.files[0]);
  await page.waitForFunction(() => document.getElementById("listen").textContent === "Stop" && !document.getElementById("listen").disabled);
  await page.click("#listen");
  await page.waitForFunction(() => !document.getElementById("measure").disabled);
  return look(page);
}

async function goOffline(page, url, server, context) {
  await opened(page, url);
  await page.waitForFunction(isSettled);
  await page.waitForFunction(() => document.body.dataset.kept === "true");
  server.removeAllListeners("exit");
  const gone = new Promise((resolve) => server.once("exit", resolve));
  server.kill();
  await gone;
  facts.requests.length = 0;
  const again = await context.newPage();
  again.setDefaultTimeout(PATIENCE);
  const ready_ms = await opened(again, url);
  await again.setInputFiles("#file", task.files[0]);
  await again.waitForFunction(() => !document.getElementById("measure").disabled);
  return { ready_ms, ...(await look(again)) };
}

/** Opens the page again and again: beside another one's cache, with no room for its own, from a server out of order. */
async function shareTheOrigin(page, url, server, context) {
  await page.goto(`${url}icon.svg`);
  await page.evaluate(async () => (await caches.open("of-another-page")).put("/x", new Response("x")));
  await opened(page, url);
  await page.waitForFunction(() => document.body.dataset.kept === "true");
  await page.waitForFunction(isSettled);
  const kept = await page.evaluate(() => caches.keys());
  facts.console.length = 0;
  await context.route(() => true, (route) => route.fulfill({ status: 503, body: "out of order" }));
  await opened(page, url);
  await context.unrouteAll();
  const cdp = await context.newCDPSession(page);
  await cdp.send("Storage.overrideQuotaForOrigin", { origin: new URL(url).origin, quotaSize: 100_000 });
  await opened(page, url);
  return { kept, ...(await look(page)) };
}

async function lackAFile(page, url, server, context) {
  await context.route(`**/${task.lacking}`, (route) => route.fulfill({ status: 404, body: "" }));
  return load(page, url);
}

async function refuse(page, url) {
  await opened(page, url);
  await page.click("#listen");
  await page.waitForFunction(() => document.getElementById("problem").textContent);
  return look(page);
}

async function loseTheMicrophone(page, url) {
  await page.addInitScript(() => {
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => (window.given = await ask(wanted));
    window.awake = 0;
    navigator.wakeLock.request = async () => ((window.awake += 1), { release: async () => (window.awake -= 1) });
  });
  await opened(page, url);
  await page.click("#listen");
  await page.waitForTimeout(2000);
  const happens = (event) => page.evaluate((type) => window.given.getTracks()[0].dispatchEvent(new Event(type)), event);
  const muted = [];
  for (const event of ["mute", "unmute"]) {
    await happens(event);
    muted.push(await page.textContent("#problem"));
  }
  const awake = [await page.evaluate(() => window.awake)];
  await happens("ended");
  await page.waitForFunction(() => document.getElementById("problem").textContent);
  await page.waitForFunction(isReady);
  awake.push(await page.evaluate(() => window.awake));
  return { muted, awake, ...(await look(page)) };
}

/** Lets the runtime in use fail while it listens, once, as one does that loses its GPU. */
async function loseTheRuntime(page, url, server, context) {
  await page.addInitScript(() => Object.defineProperty(navigator, "connection", { value: { saveData: true } })); // the one runtime
  let workers = 0;
  await context.route("**/engine/listener.js", async (route) => {
    const response = await route.fetch();
    const code = await response.text();
    await route.fulfill({ response, body: workers++ ? code : code.replace("await this.score(window)", 'await Promise.reject(new Error("lost its GPU"))') });
  });
  await opened(page, url);
  await page.click("#listen");
  await page.waitForFunction(() => document.getElementById("problem").textContent);
  await page.waitForFunction(isReady);
  const { problem } = await look(page);
  await page.click("#listen");
  await page.waitForTimeout(5000);
  return { lost: problem, ...(await look(page)) };
}

async function pauseAndResume(page, url) {
  await opened(page, url);
  await page.click("#listen");
  await page.waitForTimeout(3500);
  await page.click("#pause");
  const paused = await page.textContent("#clock");
  await page.waitForTimeout(2000);
  const still = await page.textContent("#clock");
  await page.click("#pause");
  await page.waitForTimeout(3500);
  await page.click("#listen");
  await page.waitForFunction(isReady);
  return { paused, still, ...(await look(page)) };
}

async function measure(page, url) {
  await opened(page, url);
  await page.waitForFunction(isSettled);
  await page.click("#measure");
  await page.waitForSelector("#download:not([hidden])", { timeout: 5 * PATIENCE });
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  await screenshot(page);
  return { name: download.suggestedFilename(), result: JSON.parse(readFileSync(await download.path(), "utf8")), ...(await look(page)) };
}

/** Scores the golden clips on WebGPU, with each runtime that has it. */
async function useTheGpu(page, url) {
  await opened(page, url);
  const outcomes = await page.evaluate(async () => {
    const { Engine } = await import("/page/engine.js");
    const outcomes = {};
    for (const runtime of ["ort-webgpu", "litert-webgpu"]) {
      const engine = new Engine();
      try {
        await engine.call("load", { folder: new URL("/detector/", location.href).href, runtime, accepted: {} });
        await engine.call("loadChecks");
        await engine.call("open", { runtime, threads: 1 });
        outcomes[runtime] = await engine.call("check");
      } catch (error) {
        outcomes[runtime] = { problem: error.message };
      }
      engine.close();
    }
    return outcomes;
  });
  return { outcomes };
}

async function lackWebAssembly(page, url) {
  await page.addInitScript(() => delete window.WebAssembly);
  return load(page, url);
}

/** Runs code as the README shows it, with `samples` defined. */
async function runSnippet(page, url) {
  await page.goto(url);
  const code = task.snippet.replace(/^import (.*) from "\.(.*)";$/gm, 'const $1 = await import("$2");');
  const words = await page.evaluate(
    async ([code, list]) => {
      const words = [], log = console.log;
      console.log = (...what) => words.push(what);
      await new (async () => {}).constructor("samples", code)(Float32Array.from(list));
      console.log = log;
      return words;
    },
    [code, task.samples],
  );
  return { words };
}

const { server, url } = await serve();
const profile = mkdtempSync(join(tmpdir(), "antispoof-web-"));
const { context, page } = await openBrowser(profile);
try {
  const result = await SCENARIOS[task.scenario](page, url, server, context);
  console.log(JSON.stringify({ url, ...facts, ...result }));
} finally {
  server.removeAllListeners("exit");
  await context.close();
  server.kill();
  rmSync(profile, { recursive: true, force: true });
}
