package io.antispoof.core;

/** Recording failed; the message is one sentence for the user. */
public final class CaptureException extends Exception {
    private static final long serialVersionUID = 1L;

    public CaptureException(String message) {
        super(message);
    }
}
