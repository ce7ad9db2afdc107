package io.antispoof.core;

import java.math.BigDecimal;
import java.math.MathContext;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** When the times of blocks of runs count, and what they come to: the rules of benchmarks/devices/runs.py. */
final class Timing {
    /** The medians of two blocks in a row agree to this share. */
    private static final double STEADY = 0.03;

    /** With fewer runs the 99th percentile is just the slowest one. */
    private static final int P99_RUNS = 100;

    /** So many times are kept, to draw how they are distributed. */
    private static final int KEPT_TIMES = 200;

    private static final MathContext FOUR_DIGITS = new MathContext(4);

    private Timing() {}

    /** Runs in a row, and how hot the device was around them. */
    static final class Block {
        final double loadMs;
        final double firstMs;
        final double[] timesMs;
        final boolean hot;

        Block(double loadMs, double firstMs, double[] timesMs, Integer before, Integer after) {
            this.loadMs = loadMs;
            this.firstMs = firstMs;
            this.timesMs = timesMs;
            this.hot = (before != null && before > 0) || (after != null && after > 0);
        }
    }

    /** Whether the last two blocks count and agree. */
    static boolean isSteady(List<Block> blocks) {
        if (blocks.size() < 2) {
            return false;
        }
        Block earlier = blocks.get(blocks.size() - 2);
        Block later = blocks.get(blocks.size() - 1);
        if (earlier.hot || later.hot) {
            return false;
        }
        return Math.abs(quantile(later.timesMs, 0.5) / quantile(earlier.timesMs, 0.5) - 1) <= STEADY;
    }

    /**
     * Returns the figures of the blocks that count, of the steady ones alone where there are any.
     *
     * @throws Refusal the device was too hot in all of them
     */
    static Map<String, Object> figures(List<Block> blocks) throws Refusal {
        List<Block> counted = new ArrayList<>();
        for (Block block : blocks) {
            if (!block.hot) {
                counted.add(block);
            }
        }
        if (counted.isEmpty()) {
            throw new Refusal("the device was throttling in every block of runs; let it cool down and try again");
        }
        boolean steady = isSteady(blocks);
        List<Block> used = steady ? counted.subList(counted.size() - 2, counted.size()) : counted;
        Map<String, Object> figures = new LinkedHashMap<>();
        figures.put("steady", steady);
        figures.put("blocks", counts(blocks.size(), blocks.size() - counted.size(), used.size()));
        figures.put("ms", percentiles(timesOf(used)));
        figures.put("load_ms", medianOf(counted, true));
        figures.put("first_run_ms", medianOf(counted, false));
        figures.put("times_ms", kept(timesOf(used)));
        return figures;
    }

    private static Map<String, Object> counts(int run, int hot, int used) {
        Map<String, Object> counts = new LinkedHashMap<>();
        counts.put("run", run);
        counts.put("hot", hot);
        counts.put("used", used);
        return counts;
    }

    private static double[] timesOf(List<Block> blocks) {
        double[] times = new double[0];
        for (Block block : blocks) {
            int before = times.length;
            times = Arrays.copyOf(times, before + block.timesMs.length);
            System.arraycopy(block.timesMs, 0, times, before, block.timesMs.length);
        }
        return times;
    }

    private static double medianOf(List<Block> blocks, boolean load) {
        double[] values = new double[blocks.size()];
        for (int i = 0; i < values.length; i++) {
            values[i] = load ? blocks.get(i).loadMs : blocks.get(i).firstMs;
        }
        return quantile(values, 0.5);
    }

    /** At most 200 of the times to four digits, in their order and at even distances. */
    static List<Double> kept(double[] times) {
        List<Double> kept = new ArrayList<>();
        int count = Math.min(times.length, KEPT_TIMES);
        for (int i = 0; i < count; i++) {
            int place = count == 1 ? 0 : (int) Math.rint(i * (times.length - 1.0) / (count - 1));
            kept.add(new BigDecimal(times[place]).round(FOUR_DIGITS).doubleValue());
        }
        return kept;
    }

    static Map<String, Object> percentiles(double[] times) {
        Map<String, Object> ms = new LinkedHashMap<>();
        ms.put("p50", quantile(times, 0.5));
        ms.put("p90", quantile(times, 0.9));
        ms.put("p99", times.length < P99_RUNS ? null : (Object) quantile(times, 0.99));
        ms.put("least", quantile(times, 0));
        ms.put("runs", times.length);
        return ms;
    }

    /** Between two values in proportion, as NumPy does by default. */
    static double quantile(double[] values, double share) {
        double[] sorted = values.clone();
        Arrays.sort(sorted);
        double place = share * (sorted.length - 1);
        int below = (int) Math.floor(place);
        int above = Math.min(below + 1, sorted.length - 1);
        return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
    }
}
