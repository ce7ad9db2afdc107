package io.antispoof.core;

/**
 * Tells when a device lost samples because nobody read them in time.
 *
 * <p>Android does not say so. But a device records as much as the clock says, and what is behind the clock by
 * more than its buffer holds is lost: the oldest samples are kept, the newest dropped. So the gap lies behind
 * the samples that are still in the buffer, and is told once those were read.
 */
final class OverrunWatch {
    /** Less than this is the clock's or the scheduler's doing, in seconds. */
    private static final double LEAST_SECONDS = 0.05;

    /** How much the device's clock may run behind: 0.1 %, many times what crystals differ by. */
    private static final double DRIFT = 0.001;

    private final int rate;
    private final int bufferFrames;
    private boolean begun;
    private long last;
    private double behind;
    private double lost;
    private long framesUntilGap;

    OverrunWatch(int rate, int bufferFrames) {
        this.rate = rate;
        this.bufferFrames = bufferFrames;
    }

    /** Takes note of a read that ended now; returns how many frames are missing behind its samples, or 0. */
    long afterRead(int frames, long nowNanos) {
        // Devices take their time to begin: what counts is the time from the first samples on.
        double elapsed = begun ? (nowNanos - last) * 1e-9 * rate : frames;
        begun = true;
        last = nowNanos;
        behind = Math.max(0, behind + elapsed * (1 - DRIFT) - frames);
        double beyond = behind - bufferFrames;
        if (beyond > LEAST_SECONDS * rate) {
            if (lost == 0) {
                framesUntilGap = bufferFrames;
            }
            lost += beyond;
            behind = bufferFrames;
            return 0;
        }
        return gapAfter(frames);
    }

    /** Returns how many frames the device holds that nobody read, as far as the clock can tell. */
    long waiting() {
        return Math.round(behind);
    }

    private long gapAfter(int frames) {
        if (lost == 0) {
            return 0;
        }
        framesUntilGap -= frames;
        // What is in the buffer was read, or less was in it than it can hold: the reader waits for new samples.
        if (framesUntilGap > 0 && behind > 0) {
            return 0;
        }
        long gap = Math.round(lost);
        lost = 0;
        return gap;
    }
}
