// A worker with one runtime in it, as the page sees it.
import { Problem } from "../engine/problem.js";

export class Engine {
  /** @param {{onWord?: Function, onLevel?: Function, onFailed?: Function}} handlers of what a stream says */
  constructor(handlers = {}) {
    Object.assign(this, handlers);
    this.waiting = new Map();
    this.last = 0;
    this.worker = new Worker(new URL("../engine/worker.js", import.meta.url));
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.onerror = (event) => this.fail(event);
  }

  /** Calls a function of engine/session.js; rejects with a `Problem` where it says one sentence. */
  call(call, args = {}, transfer = []) {
    const id = ++this.last;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, call, ...args }, transfer);
    });
  }

  receive({ id, result, problem, isKnown, word, level, failed }) {
    if (word) this.onWord?.(word);
    else if (level) this.onLevel?.(level);
    else if (failed) this.onFailed?.(failed);
    else {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (problem) reject(isKnown ? new Problem(problem) : new Error(problem));
      else resolve(result);
    }
  }

  fail(event) {
    const error = new Error(event.message || "its worker does not start");
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }

  close() {
    this.worker.terminate();
  }
}
