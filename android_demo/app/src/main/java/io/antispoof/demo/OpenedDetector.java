package io.antispoof.demo;

import android.content.Context;
import io.antispoof.core.Detector;
import io.antispoof.core.DetectorFolder;
import io.antispoof.core.OnnxScorer;
import io.antispoof.core.Refusal;
import io.antispoof.core.Scorer;
import io.antispoof.core.ScorerException;

/** The detector of this app, verified, open and reproducing its golden scores. */
final class OpenedDetector {
    private static final int THREADS = 1; // the bundled model takes milliseconds; more threads only wake more cores

    final Detector detector;
    final Scorer scorer;
    final String runtime;

    /** By how much the golden scores were off. */
    final double goldenDifference;

    private OpenedDetector(Detector detector, Scorer scorer, double goldenDifference) {
        this.detector = detector;
        this.scorer = scorer;
        this.goldenDifference = goldenDifference;
        this.runtime = OnnxScorer.version();
    }

    /** Verifies the assets without opening the model. */
    static Detector verify(Context context) throws Refusal {
        return new DetectorFolder(new AssetFiles(context.getAssets()), new KeptModels(context)).load();
    }

    /** Takes as long as a few windows do; not for the main thread. */
    static OpenedDetector open(Context context) throws Refusal {
        Detector detector = verify(context);
        Scorer scorer = detector.open(THREADS);
        try {
            return new OpenedDetector(detector, scorer, detector.accept(scorer));
        } catch (Refusal | ScorerException off) {
            scorer.close();
            throw off;
        }
    }
}
