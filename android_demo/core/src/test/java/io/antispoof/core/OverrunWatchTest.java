package io.antispoof.core;

import static org.junit.Assert.assertEquals;

import java.util.Random;
import org.junit.Test;

public class OverrunWatchTest {
    private static final int RATE = 16_000;
    private static final int BUFFER = 32_000;
    private static final int CHUNK = 1_600;

    private final OverrunWatch watch = new OverrunWatch(RATE, BUFFER);
    private double now;

    private long read(double seconds, int frames) {
        now += seconds;
        return watch.afterRead(frames, Math.round(now * 1e9));
    }

    @Test
    public void hoursOfJitterAndDriftAreNoLoss() {
        Random random = new Random(1);
        double device = 0; // when the next chunk is there; its clock is 0.03 % slow
        for (int i = 0; i < 36_000 * 5; i++) {
            device += 0.1 * 1.0003;
            double late = Math.max(now, device) + 0.05 * random.nextDouble();
            assertEquals(0, read(late - now, CHUNK));
        }
    }

    @Test
    public void aStallThatTheBufferCoversIsNoLoss() {
        read(0.1, CHUNK);
        assertEquals(0, read(1.9, CHUNK));
        assertEquals(1.8 * RATE, watch.waiting(), 0.03 * RATE);
        for (int i = 0; i < 18; i++) {
            assertEquals(0, read(0.001, CHUNK));
        }
        assertEquals(0, read(0.1, CHUNK));
        assertEquals(0, watch.waiting(), 0.03 * RATE);
    }

    @Test
    public void whatTheBufferCannotHoldIsLostBehindWhatItHolds() {
        read(0.1, CHUNK);
        assertEquals(0, read(5.0, CHUNK)); // 80,000 came in; 32,000 were kept
        long gap = 0;
        int heardBefore = CHUNK;
        while (gap == 0) {
            gap = read(0.0001, CHUNK);
            heardBefore += gap == 0 ? CHUNK : 0;
        }
        assertEquals(80_000 - BUFFER - CHUNK, gap, 0.01 * 80_000);
        assertEquals(BUFFER, heardBefore, 2 * CHUNK);
        assertEquals(0, read(0.1, CHUNK));
    }

    @Test
    public void aSlowStartIsNoLoss() {
        assertEquals(0, read(60, CHUNK));
        assertEquals(0, read(0.1, CHUNK));
    }
}
