// What the page keeps on this device between visits; where storage is refused, it keeps nothing.
const PREFIX = "antispoof.";

/** Returns what was remembered under a name, else `otherwise`. */
export function recall(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // A private window: the page works, and measures anew next time.
  }
}
