package io.antispoof.core;

import java.io.Closeable;

/**
 * Samples in, readings out: windows of speech are scored as they come, on the thread that brings the samples.
 *
 * <p>Where that takes longer than the speech does, windows are left out, and no samples: what is told stays new.
 */
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

    /** Of audio that may wait before windows are left out: what lies between two of them. */
    private static final double LATE_SECONDS = 0.5;

    private final Scorer scorer;
    private final Listener listener;
    private final Clock clock;
    private final SpeechStream stream;
    private final Judge judge;
    private final double lateFrames;
    private boolean late;

    /** Listens to audio of a rate with a scorer, which stays the caller's. */
    public LiveDetector(Scorer scorer, Manifest manifest, int sampleRate, Clock clock, Listener listener) {
        this.scorer = scorer;
        this.listener = listener;
        this.clock = clock;
        lateFrames = LATE_SECONDS * sampleRate;
        Rules rules = Rules.of(manifest);
        stream = new SpeechStream(StreamConfig.of(manifest.samples, sampleRate));
        judge = rules == null ? null : new Judge(rules);
    }

    /** Takes samples, behind which so many more wait already. */
    public void hear(short[] pcm, int frames, long waiting) {
        late = waiting > lateFrames;
        stream.hear(pcm, frames, this);
        listener.level(Math.max(QUIETEST_DB, 10 * Math.log10(Math.max(stream.power(), 1e-12))));
    }

    /** Says that frames of input were lost here. */
    public void lose(long frames) {
        stream.lose(frames, this);
    }

    /** Scores what is left; nothing follows. */
    public void finish() {
        late = false;
        stream.finish(this);
    }

    @Override
    public void found(StreamEvent event, float[] window) {
        if (window == null) {
            listener.notEnough((double) event.speech / StreamConfig.RATE);
            return;
        }
        if (late) {
            return;
        }
        long before = clock.nanos();
        float score = scorer.score(window);
        double milliseconds = (clock.nanos() - before) * 1e-6;
        if (Float.isNaN(score) || Float.isInfinite(score)) {
            throw new ScorerException("the model gave a score that is no number; do not trust it with this file");
        }
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
