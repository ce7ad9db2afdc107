package io.antispoof.core;

/** A detector is not what it should be, and is not opened; the message is one sentence that says what to do. */
public final class Refusal extends Exception {
    private static final long serialVersionUID = 1L;

    public Refusal(String message) {
        super(message);
    }
}
