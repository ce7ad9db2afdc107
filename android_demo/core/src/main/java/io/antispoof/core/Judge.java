package io.antispoof.core;

import java.io.Closeable;

/** Scores in, decisions out, by the native core. One thread at a time; close it. */
public final class Judge implements Closeable {
    private final double[] ratios = new double[2];
    private final long[] decided = new long[3];
    private long handle;

    /**
     * Makes an undecided judge.
     *
     * @throws IllegalArgumentException the core refuses the rules
     */
    public Judge(Rules r) {
        NativeLibrary.load();
        handle = open(r.scale, r.offset, r.timeConstant, r.enter, r.exit, r.minDuration);
        if (handle == 0) {
            throw new IllegalArgumentException("the streaming core refuses these rules");
        }
    }

    /**
     * Takes the score of the window that ended at {@code end} and says what follows.
     *
     * @throws ScorerException the score is no number, so that nothing can be decided by it
     */
    public Verdict hear(double score, long end) {
        if (handle == 0) {
            throw new IllegalStateException("the judge is closed");
        }
        if (!update(handle, score, end, ratios, decided)) {
            throw new ScorerException("a score of " + score + " cannot be judged");
        }
        return new Verdict(ratios, decided);
    }

    @Override
    public void close() {
        close(handle);
        handle = 0;
    }

    private static native long open(
            double scale, double offset, double timeConstant, double enter, double exit, long minDuration);

    private static native void close(long handle);

    private static native boolean update(long handle, double score, long end, double[] ratios, long[] decided);
}
