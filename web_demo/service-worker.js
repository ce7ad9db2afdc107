// Keeps the page working without a network: everything it fetched once is there the next time.
//
// The network comes first, so that a changed file is never stale; what has not changed is not sent again, and what
// the network does not answer comes from the cache.
const CACHE = "antispoof-1";
const SHELL = [
  "./",
  "style.css",
  "icon.svg",
  "app.webmanifest",
  ...["capture-worklet", "chart", "choice", "engine", "main", "measure", "memory", "microphone", "recording", "sentences", "view"].map((name) => `page/${name}.js`),
  ...["core", "detector", "listener", "manifest", "problem", "runtimes", "session", "signature", "statistics", "worker"].map((name) => `engine/${name}.js`),
  ...["spoof_core.wasm", "ed25519.js", "versions.json"].map((name) => `vendor/${name}`),
];

self.addEventListener("install", (event) => {
  event.waitUntil(install());
});

self.addEventListener("activate", (event) => {
  event.waitUntil(activate());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const isOurs = new URL(request.url).origin === self.location.origin;
  if (request.method === "GET" && isOurs) event.respondWith(answer(request));
});

// What the page fetched before this worker was there, it names.
self.addEventListener("message", (event) => {
  event.waitUntil(keep(event.data.urls));
});

async function install() {
  await (await caches.open(CACHE)).addAll(SHELL);
  await self.skipWaiting();
}

async function activate() {
  for (const name of await caches.keys()) if (name !== CACHE) await caches.delete(name);
  await self.clients.claim();
}

async function keep(urls) {
  const cache = await caches.open(CACHE);
  for (const url of urls) if (!(await cache.match(url))) await cache.add(url).catch(() => {}); // one that is gone is not needed
  for (const client of await self.clients.matchAll()) client.postMessage({ kept: true });
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreVary: true });
    if (kept) return kept;
    throw error;
  }
}
