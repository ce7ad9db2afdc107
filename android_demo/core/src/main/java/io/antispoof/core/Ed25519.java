package io.antispoof.core;

import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.Signature;
import java.security.SignatureException;
import java.security.spec.X509EncodedKeySpec;

/** Verifies Ed25519 signatures (RFC 8032): by the platform where it can, else by {@link Ed25519Portable}. */
final class Ed25519 {
    static final int KEY_BYTES = 32;
    static final int SIGNATURE_BYTES = 64;

    /** What stands before a raw key in SubjectPublicKeyInfo (RFC 8410). */
    private static final byte[] X509 = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

    private Ed25519() {}

    /** Tells whether a signature of 64 bytes is this raw key's over this message. */
    static boolean verify(byte[] key, byte[] message, byte[] signature) {
        if (key.length != KEY_BYTES || signature.length != SIGNATURE_BYTES) {
            return false;
        }
        Signature verifier = platformVerifier(key);
        if (verifier == null) {
            return Ed25519Portable.verify(key, message, signature);
        }
        try {
            verifier.update(message);
            return verifier.verify(signature);
        } catch (SignatureException malformed) {
            return false;
        }
    }

    /**
     * Returns the platform's verifier, or null where it has none that takes the key: some versions of Android
     * name the algorithm, but only for keys in their key store.
     */
    private static Signature platformVerifier(byte[] key) {
        byte[] encoded = new byte[X509.length + KEY_BYTES];
        System.arraycopy(X509, 0, encoded, 0, X509.length);
        System.arraycopy(key, 0, encoded, X509.length, KEY_BYTES);
        try {
            PublicKey publicKey = KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(encoded));
            Signature verifier = Signature.getInstance("Ed25519");
            verifier.initVerify(publicKey);
            return verifier;
        } catch (GeneralSecurityException none) {
            return null;
        }
    }
}
