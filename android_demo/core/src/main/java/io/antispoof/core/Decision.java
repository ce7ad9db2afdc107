package io.antispoof.core;

/** What is decided so far, in the order of {@code enum spoof_decision}. */
public enum Decision {
    UNDECIDED,
    BONAFIDE,
    SPOOF
}
