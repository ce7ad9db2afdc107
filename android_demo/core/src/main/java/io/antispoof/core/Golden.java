package io.antispoof.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;

/** Clips and what a model file must score them: runtimes/golden.py. */
public final class Golden {
    static final int MAX_CLIPS = 1000;
    static final int MAX_BYTES = 1 << 26;

    public final int clips;
    public final double tolerance;
    final String sha256;
    private final int samples;
    private final double[] scores;
    private FloatBuffer waveforms;

    private Golden(Fields f, Manifest manifest) throws Refusal {
        f.integer("schema", 1, 1);
        clips = (int) f.integer("clips", 1, MAX_CLIPS);
        samples = (int) f.integer("samples", manifest.samples, manifest.samples);
        scores = f.numbers("scores");
        tolerance = f.number("tolerance");
        sha256 = f.sha256("sha256");
        if (scores.length != clips || bytes() > MAX_BYTES) {
            throw f.wrong("scores", "are not one for each clip, or more than an app can hold");
        }
    }

    /** Reads the scores; the clips follow by {@link #setWaveforms}. */
    static Golden parse(byte[] json, String file, Manifest manifest) throws Refusal {
        return new Golden(Fields.parse(json, file), manifest);
    }

    /** How long the file of the clips is. */
    long bytes() {
        return 4L * clips * samples;
    }

    void setWaveforms(byte[] littleEndian) {
        waveforms = ByteBuffer.wrap(littleEndian).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    }

    /** Returns a clip. */
    float[] clip(int index) {
        float[] clip = new float[samples];
        FloatBuffer from = waveforms.duplicate();
        from.position(index * samples);
        from.get(clip);
        return clip;
    }

    /**
     * Scores the clips and returns the largest difference.
     *
     * @throws Refusal one is off by more than the tolerance
     */
    public double check(Scorer scorer) throws Refusal {
        double[] found = new double[clips];
        for (int i = 0; i < clips; i++) {
            found[i] = scorer.score(clip(i));
        }
        return compare(found);
    }

    /** Compares scores of the clips as {@link #check} does. */
    double compare(double[] found) throws Refusal {
        double worst = 0;
        for (int i = 0; i < clips; i++) {
            double difference = Math.abs(found[i] - scores[i]);
            if (!(difference <= tolerance)) { // so that NaN fails
                throw new Refusal(
                        "this phone scores golden clip "
                                + i
                                + " "
                                + found[i]
                                + " instead of "
                                + scores[i]
                                + "; its decisions would not be those that were tested, so nothing is decided");
            }
            worst = Math.max(worst, difference);
        }
        return worst;
    }
}
