package io.antispoof.core;

/** Runs an ONNX file in ONNX Runtime, on the processor. */
public final class OnnxScorer implements Scorer {
    private final int samples;
    private long handle;

    /**
     * Opens a model that was verified before.
     *
     * @throws ScorerException the bytes are no model, or not the one that the manifest describes
     */
    public OnnxScorer(byte[] model, Manifest manifest, int threads) {
        NativeLibrary.load();
        samples = manifest.samples;
        handle = open(model, manifest.inputName, manifest.outputName, samples, threads);
    }

    /** Returns the version of ONNX Runtime that is linked. */
    public static String version() {
        NativeLibrary.load();
        return runtimeVersion();
    }

    @Override
    public float score(float[] window) {
        if (handle == 0) {
            throw new IllegalStateException("the scorer is closed");
        }
        if (window.length != samples) {
            throw new IllegalArgumentException(window.length + " samples instead of " + samples);
        }
        return run(handle, window);
    }

    @Override
    public void close() {
        close(handle);
        handle = 0;
    }

    private static native long open(byte[] model, String input, String output, int samples, int threads);

    private static native float run(long handle, float[] window);

    private static native void close(long handle);

    private static native String runtimeVersion();
}
