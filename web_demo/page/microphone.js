// The microphone: asked for without processing, heard in a worklet, at the rate that the device has.
import { Problem } from "../engine/problem.js";

const CONSTRAINTS = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const REFUSALS = {
  NotAllowedError: "The microphone was refused; allow it for this page in the browser's settings and press Listen again.",
  NotFoundError: "There is no microphone; connect one, or choose a recording.",
  NotReadableError: "Another program has the microphone to itself; close it and press Listen again.",
  SecurityError: "This browser gives no page a microphone; choose a recording instead.",
};

/**
 * Opens the microphone.
 * @param {(sentence: string) => void} onLost called when it is taken away
 * @param {(isMuted: boolean) => void} [onMuted] called when the system mutes it, and when it does so no more
 * @returns {Promise<Microphone>}
 */
export async function openMicrophone(onLost, onMuted = () => {}) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Problem("Browsers give the microphone only to pages from https or localhost; open this one from there.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: CONSTRAINTS });
  } catch (error) {
    throw new Problem(REFUSALS[error.name] ?? `The microphone cannot be opened (${error.name}).`);
  }
  const microphone = new Microphone(stream, onLost, onMuted);
  try {
    await microphone.start();
  } catch (error) {
    await microphone.close();
    throw error;
  }
  return microphone;
}

class Microphone {
  constructor(stream, onLost, onMuted) {
    this.stream = stream;
    this.track = stream.getAudioTracks()[0];
    this.context = new AudioContext(); // of the device's own rate: the core resamples, not the browser
    this.onLost = onLost;
    this.onMuted = onMuted;
    this.pausedAt = null;
  }

  get rate() {
    return this.context.sampleRate;
  }

  async start() {
    this.track.onended = () => this.onLost("The microphone was taken away; what was heard so far stands.");
    this.track.onmute = this.track.onunmute = ({ type }) => this.onMuted(type === "mute");
    if (this.track.muted) this.onMuted(true);
    // A phone that falls asleep takes the microphone away; where it may not be kept awake, it is not.
    this.awake = await navigator.wakeLock?.request("screen").catch(() => null);
    if (!this.context.audioWorklet) throw new Problem("This browser has no AudioWorklet; a current one does.");
    await this.context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
    // One channel, whatever the microphone has: the browser takes the mean of two, as the core would.
    this.node = new AudioWorkletNode(this.context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    const { port1, port2 } = new MessageChannel();
    this.node.port.postMessage({ port: port1 }, [port1]);
    this.port = port2;
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    this.node.connect(this.context.destination); // silent; what leads nowhere is not computed
    await this.context.resume();
    this.context.onstatechange = () => {
      const bySystem = this.context.state !== "running" && this.context.state !== "closed" && this.pausedAt === null;
      if (bySystem) this.onLost("The system stopped the microphone; press Listen to go on.");
    };
  }

  async pause() {
    this.pausedAt = performance.now();
    await this.context.suspend();
  }

  /** Goes on; the worklet tells, between what it kept and what comes, how many frames went by meanwhile. */
  async resume() {
    this.node.port.postMessage({ lost: Math.round(((performance.now() - this.pausedAt) / 1000) * this.rate) });
    await this.context.resume();
    this.pausedAt = null;
  }

  async close() {
    this.track.onended = this.track.onmute = this.track.onunmute = this.context.onstatechange = null;
    await this.awake?.release();
    this.track.stop();
    this.port?.close();
    if (this.context.state !== "closed") await this.context.close();
  }
}
