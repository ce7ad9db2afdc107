package io.antispoof.core;

import java.io.Closeable;

/** Samples in, readings out: windows of speech are scored as they come, on the thread that brings the samples. */
public final class LiveDetector implements Closeable, SpeechStream.Listener {
    /** What takes the readings, on that thread. */
    public interface Listener {
        /** How loud the last 10 ms were, in dB of full scale; at most 0. */
        void level(double decibels);

        /** There is not enough speech for a score yet; so many seconds of it. */
        void notEnough(double speechSeconds);

        /** A window was scored. */
        void scored(Reading reading);
    }

    private static final double QUIETEST_DB = -120;

    private final Scorer scorer;
    private final Listener listener;
    private final Clock clock;
    private final SpeechStream stream;
    private final Judge judge;

    /** Listens to audio of a rate with a scorer, which stays the caller's. */
    public LiveDetector(Scorer scorer, Manifest manifest, int sampleRate, Clock clock, Listener listener) {
        this.scorer = scorer;
        this.listener = listener;
        this.clock = clock;
        Rules rules = Rules.of(manifest);
        stream = new SpeechStream(StreamConfig.of(manifest.samples, sampleRate));
        judge = rules == null ? null : new Judge(rules);
    }

    /** Takes samples. */
    public void hear(short[] pcm, int frames) {
        stream.hear(pcm, frames, this);
        listener.level(Math.max(QUIETEST_DB, 10 * Math.log10(Math.max(stream.power(), 1e-12))));
    }

    /** Says that frames of input were lost here. */
    public void lose(long frames) {
        stream.lose(frames, this);
    }

    /** Scores what is left; nothing follows. */
    public void finish() {
        stream.finish(this);
    }

    @Override
    public void found(StreamEvent event, float[] window) {
        if (window == null) {
            listener.notEnough((double) event.speech / StreamConfig.RATE);
            return;
        }
        long before = clock.nanos();
        float score = scorer.score(window);
        double milliseconds = (clock.nanos() - before) * 1e-6;
        Verdict verdict = judge == null ? null : judge.hear(score, event.end);
        listener.scored(new Reading((double) event.end / StreamConfig.RATE, score, verdict, milliseconds));
    }

    @Override
    public void close() {
        stream.close();
        if (judge != null) {
            judge.close();
        }
    }
}
