// The native streaming core (runtimes/native/spoof_core.h) as WebAssembly: Stream, Judge and its resampler.
//
// One Core per stream: its memory is handed out once and freed with the whole instance.
import { Problem } from "./problem.js";

export const SAMPLE_RATE = 16000;
export const DECISIONS = ["undecided", "bonafide", "spoof"];
const VERSION = 1; // SPOOF_VERSION that the offsets below were written for
const PAGE_BYTES = 65536;
const CHUNK = 4096; // frames copied into the core at a time
const WINDOW = 1; // SPOOF_WINDOW

const CONFIG_FIELDS = ["sample_rate", "channels", "window", "hop", "first", "min_speech", "gate", "lead_in", "hang_over", "pause"];
const CONFIG_BYTES = 48;
const RULE_FIELDS = ["scale", "offset", "time_constant", "enter", "exit"]; // float64; min_duration, int64, follows
const RULES_BYTES = 48;
const JUDGE = { llr: 0, smoothed: 8, since: 24, decision: 40, changed: 48, bytes: 64 };
const EVENT = { kind: 0, samples: 4, start: 8, end: 16, speech: 24, turn: 32, position: 40, bytes: 48 };

export class Core {
  /** @param {WebAssembly.Module} module spoof_core.wasm, compiled */
  constructor(module) {
    this.c = new WebAssembly.Instance(module, {}).exports;
    if (this.c.spoof_version() !== VERSION) throw new Problem("The page and its core are of different versions; load the page again.");
    this.top = this.c.__heap_base.value;
  }

  /** Returns the address of so many bytes, aligned as the core wants it; 32 MiB at most. */
  take(bytes) {
    const address = (this.top + 15) & ~15;
    this.top = address + bytes;
    const missing = this.top - this.c.memory.buffer.byteLength;
    if (missing > 0) this.c.memory.grow(Math.ceil(missing / PAGE_BYTES));
    return address;
  }

  // Growing detaches the buffer: views live for one use.
  view() {
    return new DataView(this.c.memory.buffer);
  }

  floats(address, count) {
    return new Float32Array(this.c.memory.buffer, address, count);
  }

  /** Returns whether the core takes this rate. */
  takes(rate) {
    return Number.isInteger(rate) && this.c.spoof_resampler_size(rate) > 0;
  }

  /** Returns the CRC-32 of float32 samples, as the golden vectors hold it. */
  crc32(samples) {
    const address = this.take(4 * samples.length);
    this.floats(address, samples.length).set(samples);
    return this.c.spoof_crc32(address, 4 * samples.length) >>> 0;
  }

  /** Returns mono float32 `samples` of `rate` Hz at 16 kHz, as the stream would hear them. */
  resample(samples, rate) {
    const size = this.c.spoof_resampler_size(rate);
    if (!size) throw new Problem(`Audio of ${rate} Hz cannot be resampled here.`);
    const memory = this.take(size), input = this.take(4 * CHUNK), output = this.take(4 * CHUNK);
    const resampler = this.c.spoof_resampler_init(memory, size, rate);
    const pieces = [];
    const pull = () => {
      for (let count; (count = this.c.spoof_resampler_pull(resampler, output, CHUNK)) > 0; ) pieces.push(this.floats(output, count).slice());
    };
    for (let at = 0; at < samples.length; ) {
      const piece = samples.subarray(at, at + CHUNK);
      this.floats(input, piece.length).set(piece);
      at += this.c.spoof_resampler_push(resampler, input, piece.length);
      pull();
    }
    this.c.spoof_resampler_end(resampler);
    pull();
    return concatenate(pieces);
  }
}

/** Audio in, events out; whatever the chunks, the events are the same to the last bit. */
export class Stream {
  /**
   * @param {Core} core one that nothing else uses
   * @param {object} config fields of spoof_config; what is left out keeps the core's default
   */
  constructor(core, config) {
    this.core = core;
    const address = core.take(CONFIG_BYTES);
    core.c.spoof_config_default(address);
    for (const [name, value] of Object.entries(config)) {
      const index = CONFIG_FIELDS.indexOf(name);
      if (index < 0) throw new TypeError(`spoof_config has no ${name} here`);
      core.view().setInt32(address + 4 * index, Number(value), true);
    }
    const size = core.c.spoof_stream_size(address);
    if (!size) throw new Problem(`The streaming core refuses ${JSON.stringify(config)}.`);
    this.channels = core.view().getInt32(address + 4, true);
    this.samples = core.view().getInt32(address + 8, true);
    const memory = core.take(size);
    this.window = core.take(4 * this.samples);
    this.event = core.take(EVENT.bytes);
    this.input = core.take(4 * CHUNK * this.channels);
    this.stream = core.c.spoof_stream_init(memory, size, address);
  }

  /** Samples at 16 kHz heard since the stream began, gaps included. */
  get time() {
    return Number(this.core.c.spoof_stream_time(this.stream));
  }

  /** Mean power of the last 10 ms; 1 is a square wave of full scale. */
  get power() {
    return this.core.c.spoof_stream_power(this.stream);
  }

  /** Yields what is found in interleaved float32 or int16 `samples`. */
  *feed(samples) {
    const pcm16 = samples instanceof Int16Array;
    const push = pcm16 ? this.core.c.spoof_stream_push_pcm16 : this.core.c.spoof_stream_push_float;
    const frames = Math.floor(samples.length / this.channels);
    for (let done = 0; done < frames; ) {
      const count = Math.min(CHUNK, frames - done);
      const piece = samples.subarray(done * this.channels, (done + count) * this.channels);
      const View = pcm16 ? Int16Array : Float32Array;
      new View(this.core.c.memory.buffer, this.input, piece.length).set(piece);
      const taken = push(this.stream, this.input, count);
      if (taken < 0) throw new Error("the stream is finished");
      done += taken;
      yield* this.events();
    }
  }

  /** Says that so many frames of input were lost; yields what the turn that ends there still says. */
  *gap(frames) {
    if (this.core.c.spoof_stream_gap(this.stream, BigInt(Math.max(0, Math.round(frames)))) === 1) yield* this.events();
  }

  /** Says that no input follows; yields the last events. */
  *finish() {
    this.core.c.spoof_stream_finish(this.stream);
    yield* this.events();
  }

  *events() {
    while (this.core.c.spoof_stream_next(this.stream, this.window, this.event)) {
      const view = this.core.view();
      const count = (offset) => Number(view.getBigInt64(this.event + offset, true));
      yield {
        samples: view.getInt32(this.event + EVENT.samples, true),
        start: count(EVENT.start),
        end: count(EVENT.end),
        speech: count(EVENT.speech),
        turn: count(EVENT.turn),
        position: count(EVENT.position),
        window: view.getInt32(this.event, true) === WINDOW ? this.core.floats(this.window, this.samples).slice() : null,
      };
    }
  }
}

/** Scores in, decisions out: calibrated, averaged over time, with a threshold for each direction. */
export class Judge {
  /**
   * @param {Core} core
   * @param {object} rules fields of spoof_rules; what is left out keeps the core's default
   */
  constructor(core, rules) {
    this.core = core;
    this.rules = core.take(RULES_BYTES);
    this.judge = core.take(JUDGE.bytes);
    core.c.spoof_rules_default(this.rules);
    for (const [name, value] of Object.entries(rules)) {
      const index = RULE_FIELDS.indexOf(name);
      if (index >= 0) core.view().setFloat64(this.rules + 8 * index, value, true);
      else if (name === "min_duration") core.view().setBigInt64(this.rules + 40, BigInt(Math.round(value)), true);
      else throw new TypeError(`spoof_rules has no ${name}`);
    }
    if (!core.c.spoof_judge_init(this.judge, this.rules)) throw new Problem(`The streaming core refuses ${JSON.stringify(rules)}.`);
  }

  /** Takes the score of the window that ended at `end` and says what follows. */
  hear(score, end) {
    if (!this.core.c.spoof_judge_update(this.judge, this.rules, score, BigInt(end))) throw new Problem(`A score of ${score} cannot be judged; the model is damaged.`);
    const view = this.core.view();
    return {
      llr: view.getFloat64(this.judge + JUDGE.llr, true),
      smoothed: view.getFloat64(this.judge + JUDGE.smoothed, true),
      decision: DECISIONS[view.getInt32(this.judge + JUDGE.decision, true)],
      since: Number(view.getBigInt64(this.judge + JUDGE.since, true)),
      changed: view.getInt32(this.judge + JUDGE.changed, true) === 1,
    };
  }
}

function concatenate(pieces) {
  const whole = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
