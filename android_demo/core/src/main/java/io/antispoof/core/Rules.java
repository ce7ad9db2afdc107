package io.antispoof.core;

/**
 * How scores become decisions: {@code spoof_rules} of runtimes/native/spoof_core.h, which says what each means.
 *
 * <p>Lengths are samples at 16 kHz. The judge copies it when it is made.
 */
public final class Rules {
    /** Of log-likelihood ratio on either side of the threshold; none without a calibration. */
    private static final double MARGIN = 0.5;

    public double scale = 1;
    public double offset = 0;
    public double timeConstant = 3.0 * StreamConfig.RATE;
    public double enter = 0;
    public double exit = 0;
    public long minDuration = 0;

    /** Returns the rules of a manifest as runtimes/stream.py has them; null where it gives nothing to decide by. */
    public static Rules of(Manifest manifest) {
        if (manifest.calibration == null && manifest.thresholds.isEmpty()) {
            return null;
        }
        Rules rules = new Rules();
        if (manifest.calibration != null) {
            rules.scale = manifest.calibration.scale;
            rules.offset = manifest.calibration.offset;
        }
        boolean hasThreshold = !manifest.thresholds.isEmpty();
        double middle = hasThreshold ? rules.scale * manifest.thresholds.get(0).score + rules.offset : 0;
        double margin = manifest.calibration == null ? 0 : MARGIN;
        rules.enter = middle - margin;
        rules.exit = middle + margin;
        rules.minDuration = StreamConfig.RATE;
        return rules;
    }
}
