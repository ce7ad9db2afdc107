// Hears raw 16-bit mono files through the page's own engine, with ONNX Runtime Web in node.
//
// node listen.mjs CORE.wasm DETECTOR_FOLDER RATE FILE.pcm... prints one JSON list of words for each file.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { loadDetector } from "../engine/detector.js";
import { Listener } from "../engine/listener.js";
import * as ort from "../vendor/onnxruntime-web/ort.wasm.min.mjs";

const [wasm, folder, rate, ...files] = process.argv.slice(2);
ort.env.wasm.numThreads = 1;
const read = async (name) => new Uint8Array(readFileSync(join(folder, name)));
const { manifest, content } = await loadDetector(read, { suffixes: [".onnx"], accepted: {} });
const session = await ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
const score = async (window) => (await session.run({ [manifest.input.name]: new ort.Tensor("float32", window, [1, window.length]) }))[manifest.output.name].data[0];
const core = await WebAssembly.compile(readFileSync(wasm));
for (const file of files) {
  const bytes = readFileSync(file), words = [];
  const listener = new Listener({ core, manifest, score, rate: Number(rate), channels: 1, tell: (word) => words.push(word) });
  await listener.hear(new Int16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length)));
  await listener.finish();
  console.log(JSON.stringify(words));
}
process.exit(0); // the runtime keeps node alive
