package io.antispoof.core;

/** Time, so that tests need not wait for it. */
public interface Clock {
    /** The machine's own steady clock. */
    Clock SYSTEM =
            new Clock() {
                @Override
                public long nanos() {
                    return System.nanoTime();
                }

                @Override
                public void pause(long millis) {
                    try {
                        Thread.sleep(millis);
                    } catch (InterruptedException e) {
                        Thread.currentThread().interrupt();
                    }
                }
            };

    /** Nanoseconds that never run backwards. */
    long nanos();

    /** Waits. */
    void pause(long millis);
}
