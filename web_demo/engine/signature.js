// Ed25519 and sha256: who signed these bytes, and what they are.
//
// One implementation for every browser: WebCrypto's own Ed25519 is missing from many phones in use.
import { verifyAsync } from "../vendor/ed25519.js";
import { Problem } from "./problem.js";

const CONTEXT = new TextEncoder().encode("antispoof manifest 1\n");
const KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;

/** Returns the raw public key in the one line of base64 that trusted-key.pub holds. */
export function parseKey(bytes, name) {
  const text = new TextDecoder("latin1").decode(bytes);
  if (!/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=\n$/.test(text)) throw new Problem(`${name} is not a public key; put the detector in place again.`);
  return Uint8Array.from(atob(text.trim()), (character) => character.charCodeAt(0));
}

/** Returns whether `signature` is of the manifest's exact bytes and by the holder of `key`. */
export async function isSigned(manifest, signature, key) {
  if (signature.length !== SIGNATURE_BYTES || key.length !== KEY_BYTES) return false;
  const message = new Uint8Array(CONTEXT.length + manifest.length);
  message.set(CONTEXT);
  message.set(manifest, CONTEXT.length);
  return verifyAsync(signature, message, key, { zip215: false }); // as RFC 8032 has it, nothing laxer
}

/** Returns the sha256 of bytes in hexadecimal. */
export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
