// The same as replay.c with the core as WebAssembly: node replay.mjs CORE.wasm CHUNK [NAME=VALUE ...] < samples.pcm
import { readFileSync } from "node:fs";

const CONFIG = ["sample_rate", "channels", "window", "hop", "first", "min_speech", "gate", "lead_in", "hang_over", "pause"];
const CONFIG_BYTES = 48;
const RULES = ["scale", "offset", "time_constant", "enter", "exit"];
const [path, chunkText, ...options] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(readFileSync(path), {});
const core = instance.exports;

let top = core.__heap_base.value;
function take(bytes) {
  const address = (top + 15) & ~15;
  top = address + bytes;
  const missing = top - core.memory.buffer.byteLength;
  if (missing > 0) core.memory.grow(Math.ceil(missing / 65536));
  return address;
}
const view = () => new DataView(core.memory.buffer);

const config = take(CONFIG_BYTES), rules = take(48), judge = take(64), event = take(48);
core.spoof_config_default(config);
core.spoof_rules_default(rules);
let lose = 0n;
for (const option of options) {
  const [name, value] = option.split("=");
  if (CONFIG.includes(name)) view().setInt32(config + 4 * CONFIG.indexOf(name), Number(value), true);
  else if (RULES.includes(name)) view().setFloat64(rules + 8 * RULES.indexOf(name), Number(value), true);
  else if (name === "min_duration") view().setBigInt64(rules + 40, BigInt(value), true);
  else if (name === "lose") lose = BigInt(value);
  else throw new Error(`what is ${option}?`);
}
const channels = view().getInt32(config + 4, true), samples = view().getInt32(config + 8, true);
const chunk = Number(chunkText), size = core.spoof_stream_size(config);
if (!size || !core.spoof_judge_init(judge, rules)) throw new Error("not legal");
const memory = take(size), window = take(4 * samples), pcm = take(2 * chunk * channels);
const stream = core.spoof_stream_init(memory, size, config);

function tell() {
  while (core.spoof_stream_next(stream, window, event)) {
    const v = view();
    const words = [v.getInt32(event, true), v.getInt32(event + 4, true)];
    for (let i = 0; i < 5; i++) words.push(v.getBigInt64(event + 8 + 8 * i, true));
    if (words[0] === 1) {
      const crc = core.spoof_crc32(window, 4 * samples) >>> 0;
      core.spoof_judge_update(judge, rules, ((crc % 2001) - 1000) / 250, words[3]);
      const smoothed = view().getFloat64(judge + 8, true);
      words.push(crc, smoothed, view().getInt32(judge + 40, true), view().getBigInt64(judge + 24, true));
    }
    console.log(words.join(" "));
  }
}

const input = readFileSync(0);
for (let at = 0; at < input.length; at += 2 * chunk * channels) {
  const piece = input.subarray(at, at + 2 * chunk * channels);
  new Uint8Array(core.memory.buffer, pcm, piece.length).set(piece);
  const frames = piece.length / 2 / channels;
  for (let done = 0; done < frames; ) {
    done += core.spoof_stream_push_pcm16(stream, pcm + 2 * channels * done, frames - done);
    tell();
  }
  if (lose) core.spoof_stream_gap(stream, lose);
}
core.spoof_stream_finish(stream);
tell();
