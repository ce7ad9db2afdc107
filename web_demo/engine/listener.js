// Audio in, word of each window out: the streaming core, a runtime and the judge in a row.
import { Core, Judge, Stream } from "./core.js";
import { rulesOf, streamConfig } from "./manifest.js";
import { Problem } from "./problem.js";

export class Listener {
  /**
   * @param {object} options
   * @param {WebAssembly.Module} options.core
   * @param {object} options.manifest
   * @param {(window: Float32Array) => Promise<number>} options.score
   * @param {number} options.rate of the audio, in Hz
   * @param {number} options.channels
   * @param {(word: object) => void} options.tell called for each event
   * @param {() => boolean} [options.isLate] whether newer audio waits already; then a window goes unscored
   */
  constructor({ core, manifest, score, rate, channels, tell, isLate = () => false }) {
    const own = new Core(core);
    if (!own.takes(rate)) throw new Problem(`Audio of ${rate} Hz cannot be resampled here; 8, 16, 44.1, 48 and 96 kHz can.`);
    this.stream = new Stream(own, streamConfig(manifest, rate, channels));
    const rules = rulesOf(manifest);
    this.judge = rules && new Judge(own, rules);
    Object.assign(this, { score, tell, isLate });
  }

  /** Takes interleaved samples; is done when the windows in them are scored. */
  async hear(samples) {
    await this.take(this.stream.feed(samples));
  }

  /** Takes word that so many frames were lost or left out. */
  async gap(frames) {
    await this.take(this.stream.gap(frames));
  }

  async finish() {
    await this.take(this.stream.finish());
  }

  async take(events) {
    for (const { window, ...event } of events) this.tell(window ? await this.judged(window, event) : { ...event, status: "not enough speech" });
  }

  async judged(window, event) {
    if (this.isLate()) return { ...event, status: "skipped" };
    const start = performance.now();
    const score = await this.score(window);
    const ms = performance.now() - start;
    const verdict = this.judge?.hear(score, event.end) ?? { llr: score, smoothed: score, decision: "undecided", since: 0, changed: false };
    return { ...event, status: "scored", score, ms, ...verdict };
  }
}
