package io.antispoof.core;

/** What the judge makes of the scores so far. */
public final class Verdict {
    /** The log-likelihood ratio of the last score. */
    public final double llr;

    /** Its average over the last seconds. */
    public final double smoothed;

    public final Decision decision;

    /** When the decision was made, in samples at 16 kHz. */
    public final long since;

    /** Whether the last score turned it. */
    public final boolean changed;

    Verdict(double[] ratios, long[] decided) {
        llr = ratios[0];
        smoothed = ratios[1];
        decision = Decision.values()[(int) decided[0]];
        since = decided[1];
        changed = decided[2] != 0;
    }
}
