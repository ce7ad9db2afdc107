// Hands microphone samples to the worker, some 40 ms at a time, and says where the system lost any.
const PIECE = 2048; // frames

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Float32Array(PIECE);
    this.filled = 0;
    this.expected = null;
    this.port.onmessage = ({ data }) => {
      if (data.port) this.out = data.port;
      else this.tellLost(data.lost);
    };
  }

  process([[samples]]) {
    if (!this.out) return true;
    if (!samples) { // no input any more: the next that comes is no continuation
      this.expected = null;
      return true;
    }
    const lost = this.expected === null ? 0 : currentFrame - this.expected;
    this.expected = currentFrame + samples.length;
    if (lost > 0) this.tellLost(lost);
    this.piece.set(samples, this.filled);
    this.filled += samples.length;
    if (this.filled + samples.length > PIECE) this.send();
    return true;
  }

  /** Says that so many frames went by, behind what was heard before them. */
  tellLost(lost) {
    this.send();
    this.out.postMessage({ lost });
  }

  send() {
    if (!this.filled) return;
    const samples = this.piece.slice(0, this.filled);
    this.out.postMessage({ samples }, [samples.buffer]);
    this.filled = 0;
  }
}

registerProcessor("capture", Capture);
