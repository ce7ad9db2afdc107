package io.antispoof.core;

/**
 * How audio becomes windows: {@code spoof_config} of runtimes/native/spoof_core.h, which says what each means.
 *
 * <p>Lengths are samples at 16 kHz. The stream copies it when it is made.
 */
public final class StreamConfig {
    public static final int RATE = 16_000;
    public static final int MAX_WINDOW = 960_000;

    public int sampleRate = RATE;
    public int channels = 1;
    public int window = 64_600;
    public int hop = 8_000;
    public int first = RATE;
    public int minSpeech = RATE;
    public boolean gate = true;
    public int leadIn = 3_200;
    public int hangOver = 4_800;
    public int pause = 32_000;
    public float voiceMarginDb = 9;
    public float voiceLeastDb = -80;

    /** Returns what a detector that takes {@code window} samples needs for audio of a rate. */
    public static StreamConfig of(int window, int sampleRate) {
        StreamConfig config = new StreamConfig();
        config.window = window;
        config.sampleRate = sampleRate;
        config.first = Math.min(RATE, window);
        config.minSpeech = config.first;
        return config;
    }
}
