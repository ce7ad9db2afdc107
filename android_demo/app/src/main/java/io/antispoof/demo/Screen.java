package io.antispoof.demo;

import io.antispoof.core.Reading;
import java.util.ArrayDeque;
import java.util.Deque;

/** What there is to show; changed and read on the main thread alone, and kept as long as the detector is open. */
final class Screen {
    /** What the app is doing. */
    enum Phase {
        LOADING,
        REFUSED,
        READY,
        LISTENING
    }

    private static final int READINGS = 120; // a minute at two a second

    Phase phase = Phase.LOADING;

    /** Why the detector was refused or listening ended; null where neither happened. */
    String problem;

    boolean permissionMissing;
    boolean muted;
    double levelDb = Double.NaN;

    /** Seconds of speech while there is not enough for a score; NaN once there was. */
    double speechSeconds = Double.NaN;

    Reading last;
    final Deque<Reading> readings = new ArrayDeque<>();

    /** Forgets what was heard before. */
    void begin() {
        phase = Phase.LISTENING;
        problem = null;
        permissionMissing = false;
        muted = false;
        speechSeconds = 0;
        last = null;
        readings.clear();
    }

    void end(String why) {
        phase = Phase.READY;
        problem = why;
        levelDb = Double.NaN;
        muted = false;
    }

    void add(Reading reading) {
        last = reading;
        speechSeconds = Double.NaN;
        readings.addLast(reading);
        if (readings.size() > READINGS) {
            readings.removeFirst();
        }
    }
}
