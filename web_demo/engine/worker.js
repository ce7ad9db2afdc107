// The worker that everything heavy runs in. A classic one: LiteRT.js loads its part by importScripts, which
// module workers lack. Calls that come before the modules are there wait for them.
const session = import("./session.js");
self.onmessage = async ({ data }) => (await session).answer(data);
