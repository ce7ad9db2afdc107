// The runtimes that score a window, one row each: what it is called, which files it runs, how it is opened.
//
// A runtime keeps its number of threads from its first use on: open one per worker, and end the worker.
import { Problem } from "./problem.js";

const VENDOR = new URL("../vendor/", import.meta.url);

/**
 * @typedef {object} Runtime
 * @property {string} label for people
 * @property {string} suffix of the model files that it runs
 * @property {string} library the package that it is in
 * @property {boolean} gpu whether it needs WebGPU
 * @property {(detector: object, threads: number) => Promise<(window: Float32Array) => Promise<number>>} open
 */

const ORT = { suffix: ".onnx", library: "onnxruntime-web" };
const LITERT = { suffix: ".tflite", library: "@litertjs/core" };

/** @type {Record<string, Runtime>} */
export const RUNTIMES = {
  "ort-wasm": { ...ORT, label: "ONNX Runtime Web, WebAssembly", gpu: false, open: (detector, threads) => openOrt("ort.wasm.min.mjs", "wasm", detector, threads) },
  "ort-webgpu": { ...ORT, label: "ONNX Runtime Web, WebGPU", gpu: true, open: (detector, threads) => openOrt("ort.webgpu.min.mjs", "webgpu", detector, threads) },
  "litert-wasm": { ...LITERT, label: "LiteRT.js, WebAssembly", gpu: false, open: (detector, threads) => openLiteRt("wasm", detector, threads) },
  "litert-webgpu": { ...LITERT, label: "LiteRT.js, WebGPU", gpu: true, open: (detector) => openLiteRt("webgpu", detector, 1) },
};

/** Returns the version of each library in vendor, by name. */
export async function libraryVersions() {
  return (await fetch(new URL("versions.json", VENDOR))).json();
}

/** Returns the score of a window; a file may leave the size of its output open, and give any. */
export function oneScore(data, manifest) {
  if (data.length !== 1) throw new Problem(`${manifest.file.name} gave ${data.length} scores for one window; do not trust it.`);
  return data[0];
}

async function openOrt(script, provider, { manifest, content }, threads) {
  const folder = new URL("onnxruntime-web/", VENDOR);
  const ort = await import(new URL(script, folder).href);
  ort.env.wasm.wasmPaths = folder.href;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error"; // it warns of every operation that is better left to the processor
  const session = await ort.InferenceSession.create(content, { executionProviders: [provider] });
  const { input, output } = manifest;
  if (!session.inputNames.includes(input.name) || !session.outputNames.includes(output.name)) throw new Problem(`${manifest.file.name} has no input ${input.name} or output ${output.name}.`);
  return async (window) => {
    const results = await session.run({ [input.name]: new ort.Tensor("float32", window, [1, input.samples]) });
    return oneScore(results[output.name].data, manifest);
  };
}

async function openLiteRt(accelerator, { manifest, content }, threads) {
  const folder = new URL("litert/", VENDOR).href;
  const litert = await import(`${folder}index.js`);
  // In a worker the library cannot tell where its script came from, which its threads load again.
  self.Module = { mainScriptUrlOrBlob: `${folder}litert_wasm_threaded_internal.js`, locateFile: (name) => folder + name };
  // One thread runs on the build with threads as well, where there can be any: two megabytes less to fetch.
  const canThread = self.crossOriginIsolated && (await litert.supportsFeature("relaxedSimd"));
  await litert.loadLiteRt(folder, { threads: threads > 1 || canThread });
  const model = await litert.loadAndCompile(content, { accelerator, cpuOptions: { numThreads: threads } });
  if (accelerator === "webgpu" && model.options.accelerator !== "webgpu") throw new Error("the model does not run on this GPU as a whole");
  const shape = [1, manifest.input.samples];
  return async (window) => {
    const tensor = new litert.Tensor(window, shape);
    const [output] = await model.run([tensor]);
    try {
      return oneScore(await output.data(), manifest);
    } finally {
      tensor.delete();
      output.delete();
    }
  };
}
