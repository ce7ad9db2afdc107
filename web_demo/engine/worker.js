// The worker that everything heavy runs in. A classic one: LiteRT.js loads its part by importScripts, which
// module workers lack. Calls that come before the modules are there wait for them; where one of the modules cannot
// be fetched, that is the answer.
const session = import("./session.js");
self.onmessage = ({ data }) => session.then(({ answer }) => answer(data), ({ message }) => postMessage({ id: data.id, problem: message }));
