package io.antispoof.core;

import java.io.Closeable;

/** Microphone samples in, windows of speech out, by the native core. One thread at a time; close it. */
public final class SpeechStream implements Closeable {
    /** What takes the events. */
    public interface Listener {
        /** An event; {@code window} is null where there is none to score, and used again afterwards. */
        void found(StreamEvent event, float[] window);
    }

    private static final int EVENT_LONGS = 7;

    private final int channels;
    private final float[] window;
    private final long[] told = new long[EVENT_LONGS];
    private long handle;
    private boolean ended;

    /**
     * Makes a stream.
     *
     * @throws IllegalArgumentException the core refuses the configuration
     */
    public SpeechStream(StreamConfig c) {
        NativeLibrary.load();
        handle =
                open(
                        c.sampleRate,
                        c.channels,
                        c.window,
                        c.hop,
                        c.first,
                        c.minSpeech,
                        c.gate,
                        c.leadIn,
                        c.hangOver,
                        c.pause,
                        c.voiceMarginDb,
                        c.voiceLeastDb);
        if (handle == 0) {
            throw new IllegalArgumentException("the streaming core refuses this configuration");
        }
        channels = c.channels;
        window = new float[c.window];
    }

    /** Takes {@code frames} interleaved frames and tells what is found in them. */
    public void hear(short[] pcm, int frames, Listener listener) {
        checkOpen();
        if (frames < 0 || (long) frames * channels > pcm.length) {
            throw new IllegalArgumentException(frames + " frames in " + pcm.length + " samples");
        }
        int done = 0;
        while (done < frames) {
            done += push(handle, pcm, done, frames - done);
            tell(listener);
        }
    }

    /** Says that frames of input were lost, and tells what the turn that ends there still holds. */
    public void lose(long frames, Listener listener) {
        checkOpen();
        if (gap(handle, frames) != 1) {
            throw new IllegalArgumentException("a gap of " + frames + " frames cannot be told");
        }
        tell(listener);
    }

    /** Says that no input follows, and tells the last events. */
    public void finish(Listener listener) {
        checkOpen();
        ended = true;
        end(handle);
        tell(listener);
    }

    /** Returns the samples at 16 kHz heard since the beginning, gaps included. */
    public long time() {
        checkHandle();
        return time(handle);
    }

    /** Returns the mean power of the last 10 ms; 1 is a square wave of full scale. */
    public double power() {
        checkHandle();
        return power(handle);
    }

    @Override
    public void close() {
        close(handle);
        handle = 0;
    }

    private void tell(Listener listener) {
        while (next(handle, window, told)) {
            StreamEvent event = new StreamEvent(told);
            listener.found(event, event.isWindow ? window : null);
            checkHandle(); // the listener may have closed it
        }
    }

    private void checkOpen() {
        checkHandle();
        if (ended) {
            throw new IllegalStateException("the stream is finished");
        }
    }

    private void checkHandle() {
        if (handle == 0) {
            throw new IllegalStateException("the stream is closed");
        }
    }

    private static native long open(
            int rate,
            int channels,
            int window,
            int hop,
            int first,
            int minSpeech,
            boolean gate,
            int leadIn,
            int hangOver,
            int pause,
            float marginDb,
            float leastDb);

    private static native void close(long handle);

    private static native int push(long handle, short[] pcm, int from, int frames);

    private static native int gap(long handle, long frames);

    private static native void end(long handle);

    private static native boolean next(long handle, float[] window, long[] event);

    private static native long time(long handle);

    private static native double power(long handle);
}
