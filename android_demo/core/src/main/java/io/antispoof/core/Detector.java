package io.antispoof.core;

/** A detector whose signature, files and version were verified; its golden scores are the last thing to check. */
public final class Detector {
    public final Manifest manifest;
    public final Golden golden;

    final byte[] model;
    private final AcceptedModels accepted;

    Detector(Manifest manifest, byte[] model, Golden golden, AcceptedModels accepted) {
        this.manifest = manifest;
        this.model = model;
        this.golden = golden;
        this.accepted = accepted;
    }

    /** Name of the model file. */
    public String file() {
        return manifest.fileName;
    }

    /** The sha256 of the model file. */
    public String sha256() {
        return manifest.fileSha256;
    }

    /** Bytes of the model file. */
    public long bytes() {
        return model.length;
    }

    /**
     * Opens it.
     *
     * @throws ScorerException the runtime cannot
     */
    public Scorer open(int threads) {
        return new OnnxScorer(model, manifest, threads);
    }

    /**
     * Reproduces the golden scores and returns the largest difference; from then on older versions are refused.
     *
     * <p>For every start, not only of a new file: an update of the app or of the phone may change what runs it.
     *
     * @throws Refusal a score is off
     */
    public double accept(Scorer scorer) throws Refusal {
        double difference = golden.check(scorer);
        accepted.accept(manifest.model, manifest.modelVersion);
        return difference;
    }
}
