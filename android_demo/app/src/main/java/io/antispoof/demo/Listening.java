package io.antispoof.demo;

import android.content.Context;
import android.os.Handler;
import android.os.Looper;
import android.os.Process;
import io.antispoof.core.Capture;
import io.antispoof.core.CaptureException;
import io.antispoof.core.Clock;
import io.antispoof.core.LiveDetector;
import io.antispoof.core.Reading;

/** One recording: a thread that captures and scores, and tells the main thread what there is to show. */
final class Listening implements Capture.Listener, LiveDetector.Listener {
    /** What is told on the main thread; nothing is after {@link #stop}. */
    interface Listener {
        void level(double decibels);

        void notEnough(double speechSeconds);

        void scored(Reading reading);

        void muted(boolean muted);

        void ended(Capture.End end, String why);
    }

    private static final int CHUNKS_PER_SECOND = 20;
    private static final long JOIN_MILLIS = 2_000;

    private final Handler main = new Handler(Looper.getMainLooper());
    private final LiveDetector live;
    private final Capture capture;
    private final Thread thread;
    private Listener listener; // on the main thread alone

    private Listening(OpenedDetector opened, Microphone microphone, Listener listener) {
        this.listener = listener;
        int rate = microphone.sampleRate();
        live = new LiveDetector(opened.scorer, opened.detector.manifest, rate, Clock.SYSTEM, this);
        capture = new Capture(microphone, this, Clock.SYSTEM, rate / CHUNKS_PER_SECOND);
        thread =
                new Thread("listening") {
                    @Override
                    public void run() {
                        Process.setThreadPriority(Process.THREAD_PRIORITY_AUDIO);
                        try {
                            capture.run();
                        } finally {
                            live.close();
                        }
                    }
                };
    }

    /**
     * Opens the microphone and begins.
     *
     * @throws CaptureException it cannot be opened
     */
    static Listening start(Context context, OpenedDetector opened, Listener listener) throws CaptureException {
        Microphone microphone = Microphone.open(context);
        Listening listening;
        try {
            listening = new Listening(opened, microphone, listener);
        } catch (RuntimeException refused) {
            microphone.release();
            throw refused;
        }
        listening.thread.start();
        return listening;
    }

    /** Ends it, and waits until the microphone is free; says whether the model may be closed now. */
    boolean stop() {
        listener = null;
        capture.stop();
        try {
            thread.join(JOIN_MILLIS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        return !thread.isAlive();
    }

    @Override
    public void heard(short[] pcm, int frames, long waiting) {
        live.hear(pcm, frames, waiting);
    }

    @Override
    public void lost(long frames) {
        live.lose(frames);
    }

    /** One thing to tell. */
    private abstract class News implements Runnable {
        abstract void tell(Listener to);

        @Override
        public void run() {
            if (listener != null) {
                tell(listener);
            }
        }
    }

    @Override
    public void level(final double decibels) {
        main.post(
                new News() {
                    @Override
                    void tell(Listener to) {
                        to.level(decibels);
                    }
                });
    }

    @Override
    public void notEnough(final double speechSeconds) {
        main.post(
                new News() {
                    @Override
                    void tell(Listener to) {
                        to.notEnough(speechSeconds);
                    }
                });
    }

    @Override
    public void scored(final Reading reading) {
        main.post(
                new News() {
                    @Override
                    void tell(Listener to) {
                        to.scored(reading);
                    }
                });
    }

    @Override
    public void muted(final boolean muted) {
        main.post(
                new News() {
                    @Override
                    void tell(Listener to) {
                        to.muted(muted);
                    }
                });
    }

    @Override
    public void ended(final Capture.End end, final String why) {
        main.post(
                new News() {
                    @Override
                    void tell(Listener to) {
                        to.ended(end, why);
                    }
                });
    }
}
