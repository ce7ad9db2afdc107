package io.antispoof.core;

/** The native half of this package, loaded once. */
final class NativeLibrary {
    static {
        System.loadLibrary("antispoof");
    }

    private NativeLibrary() {}

    /** Makes sure that it is there. */
    static void load() {}
}
