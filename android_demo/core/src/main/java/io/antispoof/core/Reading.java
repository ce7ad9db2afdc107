package io.antispoof.core;

/** What one window came to. */
public final class Reading {
    /** When the window ended, in seconds since listening began. */
    public final double seconds;

    public final float score;

    /** Null where the manifest gives nothing to decide by. */
    public final Verdict verdict;

    /** How long the model took. */
    public final double milliseconds;

    Reading(double seconds, float score, Verdict verdict, double milliseconds) {
        this.seconds = seconds;
        this.score = score;
        this.verdict = verdict;
        this.milliseconds = milliseconds;
    }
}
