package io.antispoof.core;

/** A model could not be opened or run; thrown by native code too. The message is one line. */
public final class ScorerException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public ScorerException(String message) {
        super(message);
    }
}
