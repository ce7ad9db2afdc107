package io.antispoof.core;

/** What a stream found: {@code spoof_event} of runtimes/native/spoof_core.h. Times are samples at 16 kHz. */
public final class StreamEvent {
    /** Whether there is a window to score, or word that there is not enough speech for one. */
    public final boolean isWindow;

    /** Samples of the turn in the window, before they were repeated to fill it. */
    public final int samples;

    public final long start;
    public final long end;
    public final long speech;
    public final long turn;
    public final long position;

    StreamEvent(long[] told) {
        isWindow = told[0] == 1;
        samples = (int) told[1];
        start = told[2];
        end = told[3];
        speech = told[4];
        turn = told[5];
        position = told[6];
    }
}
