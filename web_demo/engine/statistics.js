// When times count: blocks of runs until two in a row agree, as benchmarks/devices/runs.py has it.
export const BLOCK_RUNS = 50;
export const MOST_BLOCKS = 8;
const STEADY = 0.03; // the medians of two blocks in a row agree to this share
const P99_RUNS = 100; // fewer say nothing of the hundredth

/** Returns a quantile of sorted numbers, interpolated as NumPy does by default. */
function quantile(sorted, share) {
  const at = share * (sorted.length - 1), below = Math.floor(at);
  return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}

export function median(times) {
  return quantile([...times].sort((a, b) => a - b), 0.5);
}

/** Returns whether the last two blocks agree. */
export function isSteady(blocks) {
  if (blocks.length < 2) return false;
  const [earlier, later] = blocks.slice(-2).map(median);
  return Math.abs(later / earlier - 1) <= STEADY;
}

/** Returns the figures of the last two blocks where they agree, of all where none do. */
export function figures(blocks) {
  const steady = isSteady(blocks);
  const used = steady ? blocks.slice(-2) : blocks;
  const sorted = used.flat().sort((a, b) => a - b);
  const [p50, p90, p99] = [0.5, 0.9, 0.99].map((share) => quantile(sorted, share));
  return {
    steady,
    blocks: { run: blocks.length, hot: 0, used: used.length },
    ms: { p50, p90, p99: sorted.length >= P99_RUNS ? p99 : null, least: sorted[0], runs: sorted.length },
  };
}
