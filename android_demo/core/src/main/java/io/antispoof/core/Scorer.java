package io.antispoof.core;

import java.io.Closeable;

/** What gives windows their scores. One thread at a time; close it. */
public interface Scorer extends Closeable {
    /**
     * Returns the score of a window of as many samples as the manifest says; higher is bona fide.
     *
     * @throws ScorerException it cannot run
     */
    float score(float[] window);

    @Override
    void close();
}
