// Puts into vendor/ what the page needs and this folder does not hold: the runtimes, out of node_modules, and
// the streaming core, built from runtimes/native. Run by `npm run build`. What was in vendor/ stays until all of it
// is there anew: make takes a folder that is there for a whole one.
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const here = dirname(fileURLToPath(import.meta.url));
const partial = join(here, "vendor.partial");
const modules = join(here, "node_modules");
const compressible = /\.(wasm|m?js|json)$/;

// What is copied from where. Of ONNX Runtime the plain build (small) and the one with WebGPU (large, fetched only
// where there is a GPU); of LiteRT.js one thread, threads, and what browsers without relaxed SIMD need.
const FILES = {
  "onnxruntime-web": {
    package: "onnxruntime-web",
    files: ["ort.wasm.min.mjs", "ort.webgpu.min.mjs", ...["", ".asyncify"].flatMap((kind) => [`ort-wasm-simd-threaded${kind}.mjs`, `ort-wasm-simd-threaded${kind}.wasm`])].map((name) => `dist/${name}`),
  },
  litert: {
    package: "@litertjs/core",
    files: ["dist/index.js", ...["", "_threaded", "_compat"].flatMap((kind) => [`wasm/litert_wasm${kind}_internal.js`, `wasm/litert_wasm${kind}_internal.wasm`])],
  },
};

/** Ends with a sentence where a program that builds the core is missing. */
function findCompilers() {
  const programs = ["make", process.env.CLANG || "clang", "wasm-ld"];
  const missing = programs.filter((name) => spawnSync(name, ["--version"]).error);
  if (missing.length === 0) return;
  console.error(`not found: ${missing.join(", ")}. The streaming core is built with them (Debian packages make, clang, lld)`);
  process.exit(2);
}

function copy(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
}

function replaceOnce(path, before, after) {
  const text = readFileSync(path, "utf8");
  if (text.split(before).length !== 2) throw new Error(`${path}: ${JSON.stringify(before)} is not in it once; the library has changed`);
  writeFileSync(path, text.replace(before, after));
}

function versionOf(name) {
  return JSON.parse(readFileSync(join(modules, name, "package.json"), "utf8")).version;
}

function copyRuntimes() {
  for (const [folder, { package: name, files }] of Object.entries(FILES)) {
    for (const file of files) copy(join(modules, name, file), join(partial, folder, file.split("/").pop()));
  }
  copy(join(modules, "@litertjs/wasm-utils/dist/index.js"), join(partial, "litert/wasm-utils.js"));
  // A browser finds files, not packages; import maps do not reach into workers.
  replaceOnce(join(partial, "litert/index.js"), '"@litertjs/wasm-utils"', '"./wasm-utils.js"');
  copy(join(modules, "@noble/ed25519/index.js"), join(partial, "ed25519.js"));
  const versions = Object.fromEntries(["onnxruntime-web", "@litertjs/core", "@noble/ed25519"].map((name) => [name, versionOf(name)]));
  writeFileSync(join(partial, "versions.json"), `${JSON.stringify(versions)}\n`);
}

function buildCore() {
  const native = join(here, "../runtimes/native"), build = join(partial, ".native");
  execFileSync("make", ["-s", "-C", native, `BUILD=${build}`, join(build, "wasm32/spoof_core.wasm")], { stdio: "inherit" });
  copy(join(build, "wasm32/spoof_core.wasm"), join(partial, "spoof_core.wasm"));
  rmSync(build, { recursive: true });
}

function filesBelow(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? filesBelow(join(folder, entry.name)) : [join(folder, entry.name)]));
}

/** Writes FILE.br and FILE.gz beside each file: serve.py sends them, and so do most hosts of static files. */
function compressAll() {
  for (const path of filesBelow(partial).filter((file) => compressible.test(file))) {
    const content = readFileSync(path);
    // Quality 9 is within some per cent of 11 and takes a tenth of its time.
    writeFileSync(`${path}.br`, brotliCompressSync(content, { params: { [constants.BROTLI_PARAM_QUALITY]: 9, [constants.BROTLI_PARAM_LGWIN]: 24 } }));
    writeFileSync(`${path}.gz`, gzipSync(content, { level: 9 }));
    const sizes = [path, `${path}.br`].map((file) => `${(statSync(file).size / 1024).toFixed(0).padStart(6)} KiB`);
    console.log(`${sizes.join(" -> ")}  ${relative(partial, path)}`);
  }
}

findCompilers();
rmSync(partial, { recursive: true, force: true });
copyRuntimes();
buildCore();
compressAll();
rmSync(join(here, "vendor"), { recursive: true, force: true });
renameSync(partial, join(here, "vendor"));
