// Plays the golden vectors of tests/golden through engine/core.js: node replay.mjs CORE.wasm GOLDEN_FOLDER
//
// Prints {events: {case: [[event, ...] of each chunk size]}, resampled: [...]} for tests/web/test_engine.py to compare.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Core, Judge, Stream } from "../engine/core.js";

const CHUNKS = [7, 441, 100000];
const [wasm, folder] = process.argv.slice(2);
const module = await WebAssembly.compile(readFileSync(wasm));
const facts = JSON.parse(readFileSync(join(folder, "core.json"), "utf8"));

function pcm(name) {
  const bytes = readFileSync(join(folder, name));
  return new Int16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

function play({ config, rules, pcm: name, repeat, lose }, chunk) {
  const stream = new Stream(new Core(module), config), crc = new Core(module), judge = new Judge(new Core(module), rules);
  const events = [], samples = pcm(name), step = (lose ? samples.length : chunk) * stream.channels;
  const tell = (found) => {
    for (const { window, ...event } of found) events.push(window ? { ...event, ...judged(window, event) } : event);
  };
  const judged = (window, event) => {
    const crc32 = crc.crc32(window);
    crc.top = crc.c.__heap_base.value;
    const { smoothed, decision, since } = judge.hear(((crc32 % 2001) - 1000) / 250, event.end);
    return { crc32, smoothed, decision, since };
  };
  for (let i = 0; i < repeat; i++) {
    for (let at = 0; at < samples.length; at += step) tell(stream.feed(samples.subarray(at, at + step)));
    if (lose) tell(stream.gap(lose));
  }
  tell(stream.finish());
  return events;
}

function resampled({ pcm: name, rate }) {
  const heard = new Core(module).resample(Float32Array.from(pcm(name), (x) => x / 32768), rate);
  return { rate, samples: heard.length, crc32: new Core(module).crc32(heard), values: [...heard.filter((_, i) => i % facts.every === 0)] };
}

const events = Object.fromEntries(facts.cases.map((one) => [one.name, CHUNKS.map((chunk) => play(one, chunk))]));
console.log(JSON.stringify({ events, resampled: facts.resampled.map(resampled) }));
