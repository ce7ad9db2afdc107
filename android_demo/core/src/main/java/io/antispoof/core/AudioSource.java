package io.antispoof.core;

/**
 * Where samples come from: a microphone, or what a test plays. Mono, 16 bits.
 *
 * <p>{@link Capture} calls start, read, stop and release; only stop may come from another thread.
 */
public interface AudioSource {
    /** What {@link #read} returns where the device is gone, as when Android's audio service restarts. */
    int GONE = -1;

    /** What it returns where the permission to listen was taken back. */
    int DENIED = -2;

    /** What it returns for any other failure. */
    int BROKEN = -3;

    /** Samples per second. */
    int sampleRate();

    /** How many unread samples the device keeps; beyond them it loses some. */
    int bufferFrames();

    /**
     * Begins to record.
     *
     * @throws CaptureException it cannot; the message is for the user
     */
    void start() throws CaptureException;

    /** Waits for samples; returns how many of at most {@code frames} it wrote, 0, or one of the failures. */
    int read(short[] pcm, int frames);

    /** Ends the recording, and a read that waits; harmless where nothing was started. */
    void stop();

    /** Gives the device back; nothing is called afterwards. */
    void release();
}
