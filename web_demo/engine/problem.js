// What a person can do something about, told in one sentence; anything else is a bug and keeps its stack.

export class Problem extends Error {
  /** @param {string} sentence what is wrong and what to do, for the page to show as it is */
  constructor(sentence) {
    super(sentence);
    this.name = "Problem";
  }
}

/** Returns the sentence to show for whatever was thrown. */
export function sentenceOf(error) {
  if (error instanceof Problem) return error.message;
  return `Something went wrong here: ${String(error?.message ?? error).split("\n")[0].slice(0, 200)}`;
}
