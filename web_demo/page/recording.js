// A recording of any kind that the browser knows, at the rate it was made with.
//
// WAV of 16 bits is read here: Chromium divides positive samples by 32767 and negative ones by 32768, which moves
// scores in the third digit. The core takes the integers as they are.
import { Problem } from "../engine/problem.js";

const LARGEST = 200 * 2 ** 20;
const MAX_PEAK = 100; // 40 dB over full scale: no recording, but integers stored as floating point
const RATES = { least: 8000, most: 192000 }; // that the core takes
const PCM = 1; // the format of a WAV file, of several
const FALLBACK_RATE = 48000; // where the file's own is not known: the browser resamples to it
const MP3_RATES = { 3: [44100, 48000, 32000], 2: [22050, 24000, 16000], 0: [11025, 12000, 8000] };

/**
 * Decodes a file.
 * @param {Blob} file
 * @returns {Promise<{samples: Float32Array | Int16Array, rate: number, channels: number, seconds: number}>} interleaved
 */
export async function decodeRecording(file) {
  if (file.size > LARGEST) throw new Problem(`${file.name} is larger than ${LARGEST / 2 ** 20} MB; cut it first.`);
  let bytes;
  try {
    bytes = await file.arrayBuffer();
  } catch {
    throw new Problem(`${file.name} cannot be opened: it is a folder, or was moved or changed; choose it again.`);
  }
  const integers = readWav16(new Uint8Array(bytes));
  if (integers) return integers;
  const rate = rateOf(new Uint8Array(bytes)) ?? FALLBACK_RATE;
  let audio;
  try {
    // Decoding resamples to the rate of its context: with the file's own, samples stay as they are.
    audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  } catch {
    throw new Problem(`${file.name} is no recording that this browser can read, or too long a one; try WAV, FLAC, MP3 or Ogg, or cut it.`);
  }
  const samples = interleave(audio);
  checkPeak(samples, file.name);
  return { samples, rate: audio.sampleRate, channels: Math.min(audio.numberOfChannels, 8), seconds: audio.duration };
}

/** Refuses what runtimes/score.py refuses too, in its words: the core would hear it as gaps, and judge the rest. */
export function checkPeak(samples, name) {
  let peak = 0;
  for (let i = 0; i < samples.length; i++) {
    if (!Number.isFinite(samples[i])) throw new Problem(`${name} holds samples that are NaN or infinite.`);
    peak = Math.max(peak, Math.abs(samples[i]));
  }
  if (peak > MAX_PEAK) throw new Problem(`${name} has a peak of ${Number(peak.toPrecision(6))}: floating-point audio must be scaled to -1..1.`);
}

function interleave(audio) {
  const channels = Math.min(audio.numberOfChannels, 8);
  if (channels === 1) return audio.getChannelData(0);
  const samples = new Float32Array(audio.length * channels);
  for (let c = 0; c < channels; c++) {
    const channel = audio.getChannelData(c);
    for (let i = 0; i < channel.length; i++) samples[i * channels + c] = channel[i];
  }
  return samples;
}

/** Returns the sample rate that a WAV, FLAC, Ogg or MP3 file says it has; null where it cannot be told. */
export function rateOf(bytes) {
  const rate = rateOfWav(bytes) ?? rateOfFlac(bytes) ?? rateOfOgg(bytes) ?? rateOfMp3(bytes);
  return rate >= RATES.least && rate <= 96000 ? rate : null; // a browser decodes to no higher one
}

const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const has = (bytes, text, at) => bytes.length >= at + text.length && [...text].every((c, i) => bytes[at + i] === c.charCodeAt(0));

function* chunksOfWav(bytes) {
  if (!has(bytes, "RIFF", 0) || !has(bytes, "WAVE", 8)) return;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const size = viewOf(bytes).getUint32(at + 4, true);
    yield { name: String.fromCharCode(...bytes.subarray(at, at + 4)), content: bytes.subarray(at + 8, at + 8 + size) };
    at += 8 + size + (size & 1);
  }
}

function rateOfWav(bytes) {
  for (const { name, content } of chunksOfWav(bytes)) if (name === "fmt " && content.length >= 16) return viewOf(content).getUint32(4, true);
  return null;
}

/** Returns a WAV file of 16-bit integers as they stand in it; null for anything else, or at a rate that the core does not take. */
export function readWav16(bytes) {
  let channels = 0, rate = 0;
  for (const { name, content } of chunksOfWav(bytes)) {
    const view = viewOf(content);
    if (name === "fmt ") {
      if (content.length < 16 || view.getUint16(0, true) !== PCM || view.getUint16(14, true) !== 16) return null;
      [channels, rate] = [view.getUint16(2, true), view.getUint32(4, true)];
    } else if (name === "data" && channels >= 1 && channels <= 8 && rate >= RATES.least && rate <= RATES.most) {
      const samples = new Int16Array(Uint8Array.from(content.subarray(0, content.length & ~1)).buffer); // little-endian, as processors are
      return { samples, rate, channels, seconds: samples.length / channels / rate };
    }
  }
  return null;
}

function rateOfFlac(bytes) {
  if (!has(bytes, "fLaC", 0) || bytes.length < 21) return null;
  return (bytes[18] << 12) | (bytes[19] << 4) | (bytes[20] >> 4);
}

function rateOfOgg(bytes) {
  if (!has(bytes, "OggS", 0) || bytes.length < 60) return null;
  if (has(bytes, "OpusHead", 28)) return 48000; // whatever it was made from: Opus decodes to this
  return has(bytes, "\x01vorbis", 28) ? viewOf(bytes).getUint32(40, true) : null;
}

function rateOfMp3(bytes) {
  // An ID3 tag may come first; its length is four times seven bits.
  let at = has(bytes, "ID3", 0) && bytes.length > 10 ? 10 + bytes.slice(6, 10).reduce((sum, b) => sum * 128 + (b & 127), 0) : 0;
  for (const end = Math.min(bytes.length - 4, at + 4096); at < end; at++) {
    if (bytes[at] !== 0xff || (bytes[at + 1] & 0xe0) !== 0xe0) continue;
    const rate = MP3_RATES[(bytes[at + 1] >> 3) & 3]?.[(bytes[at + 2] >> 2) & 3];
    if (rate && (bytes[at + 1] >> 1) & 3) return rate;
  }
  return null;
}
