// Keeps the page working without a network: everything it fetched once is there the next time.
//
// The network comes first, so that a changed file is never stale; what has not changed is not sent again, and what
// the network does not answer, or only to say that its server is out of order, comes from the cache.
const OURS = "antispoof-"; // other pages of this origin have caches, too
const CACHE = `${OURS}1`;
const SHELL = [
  "./",
  "style.css",
  "icon.svg",
  "app.webmanifest",
  ...["capture-worklet", "chart", "choice", "engine", "guard", "main", "measure", "memory", "microphone", "recording", "sentences", "view"].map((name) => `page/${name}.js`),
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
  if (request.method === "GET" && isOurs) event.respondWith(answer(event));
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
  for (const name of await caches.keys()) if (name.startsWith(OURS) && name !== CACHE) await caches.delete(name);
  await self.clients.claim();
}

async function keep(urls) {
  const cache = await caches.open(CACHE);
  for (const url of urls) if (!(await cache.match(url))) await cache.add(url).catch(() => {}); // one that is gone is not needed
  for (const client of await self.clients.matchAll()) client.postMessage({ kept: true });
}

async function answer(event) {
  const { request } = event;
  const cache = await caches.open(CACHE);
  const response = await fetch(request).catch(() => null);
  // Where there is no room for it, the older copy goes as well: without a network, old and new must not mix.
  if (response?.ok) event.waitUntil(cache.put(request, response.clone()).catch(() => cache.delete(request)));
  if (response && response.status < 500) return response;
  const kept = await cache.match(request, { ignoreVary: true, ignoreSearch: request.mode === "navigate" });
  return kept ?? response ?? Response.error();
}
