package io.antispoof.core;

import java.math.BigInteger;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/**
 * Verifies Ed25519 signatures with nothing but BigInteger (RFC 8032, sections 5.1.3, 5.1.4 and 5.1.7).
 *
 * <p>It is here because Android 7 to 12 have no Ed25519 for raw keys. It only verifies: all that it sees is
 * public, so how long it takes may depend on it. Points that are not written in their one canonical form and
 * factors that are not reduced are refused; the equation is checked without the cofactor.
 */
final class Ed25519Portable {
    private static final BigInteger P = BigInteger.ONE.shiftLeft(255).subtract(BigInteger.valueOf(19));
    private static final BigInteger ORDER =
            BigInteger.ONE.shiftLeft(252).add(new BigInteger("27742317777372353535851937790883648493"));
    private static final BigInteger D = fraction(-121665, 121666);
    private static final BigInteger TWO_D = D.shiftLeft(1).mod(P);
    private static final BigInteger SQRT_OF_MINUS_ONE =
            BigInteger.valueOf(2).modPow(P.subtract(BigInteger.ONE).shiftRight(2), P);
    private static final Point BASE = decompress(littleEndian(fraction(4, 5)));
    private static final int BYTES = 32;

    private Ed25519Portable() {}

    /** A point in extended coordinates: x = X/Z, y = Y/Z, xy = T/Z. */
    private static final class Point {
        static final Point NEUTRAL =
                new Point(BigInteger.ZERO, BigInteger.ONE, BigInteger.ONE, BigInteger.ZERO);

        final BigInteger x;
        final BigInteger y;
        final BigInteger z;
        final BigInteger t;

        Point(BigInteger x, BigInteger y, BigInteger z, BigInteger t) {
            this.x = x;
            this.y = y;
            this.z = z;
            this.t = t;
        }

        Point plus(Point q) {
            BigInteger a = times(y.subtract(x), q.y.subtract(q.x));
            BigInteger b = times(y.add(x), q.y.add(q.x));
            BigInteger c = times(times(t, TWO_D), q.t);
            BigInteger d = times(z.shiftLeft(1), q.z);
            BigInteger e = b.subtract(a);
            BigInteger f = d.subtract(c);
            BigInteger g = d.add(c);
            BigInteger h = b.add(a);
            return new Point(times(e, f), times(g, h), times(f, g), times(e, h));
        }

        Point negated() {
            return new Point(P.subtract(x), y, z, P.subtract(t));
        }

        Point multiplied(BigInteger factor) {
            Point sum = NEUTRAL;
            for (int bit = factor.bitLength() - 1; bit >= 0; bit--) {
                sum = sum.plus(sum);
                sum = factor.testBit(bit) ? sum.plus(this) : sum;
            }
            return sum;
        }

        byte[] compressed() {
            BigInteger inverse = z.modInverse(P);
            byte[] bytes = littleEndian(times(y, inverse));
            bytes[BYTES - 1] |= times(x, inverse).testBit(0) ? (byte) 0x80 : 0;
            return bytes;
        }
    }

    /** Tells whether a signature of 64 bytes is this key's of 32 bytes over this message. */
    static boolean verify(byte[] key, byte[] message, byte[] signature) {
        Point a = decompress(key);
        byte[] r = slice(signature, 0);
        BigInteger s = integer(slice(signature, BYTES));
        if (a == null || decompress(r) == null || s.compareTo(ORDER) >= 0) {
            return false;
        }
        BigInteger k = integer(sha512(r, key, message)).mod(ORDER);
        Point expected = BASE.multiplied(s).plus(a.negated().multiplied(k));
        return MessageDigest.isEqual(expected.compressed(), r);
    }

    /** Returns the point that 32 bytes stand for, or null where they stand for none. */
    private static Point decompress(byte[] bytes) {
        byte[] withoutSign = bytes.clone();
        withoutSign[BYTES - 1] &= 0x7f;
        BigInteger y = integer(withoutSign);
        boolean odd = (bytes[BYTES - 1] & 0x80) != 0;
        if (y.compareTo(P) >= 0) {
            return null;
        }
        BigInteger square = times(y, y);
        BigInteger u = square.subtract(BigInteger.ONE).mod(P);
        BigInteger v = times(D, square).add(BigInteger.ONE).mod(P);
        BigInteger x = root(times(u, v.modInverse(P))); // v is never 0: -1/d is no square
        if (x == null || (x.signum() == 0 && odd)) {
            return null;
        }
        x = x.testBit(0) == odd ? x : P.subtract(x);
        return new Point(x, y, BigInteger.ONE, times(x, y));
    }

    /** Returns a square root modulo P, which leaves 5 when divided by 8; null where there is none. */
    private static BigInteger root(BigInteger square) {
        BigInteger x = square.modPow(P.add(BigInteger.valueOf(3)).shiftRight(3), P);
        if (times(x, x).equals(square)) {
            return x;
        }
        x = times(x, SQRT_OF_MINUS_ONE);
        return times(x, x).equals(square) ? x : null;
    }

    private static BigInteger times(BigInteger a, BigInteger b) {
        return a.multiply(b).mod(P);
    }

    private static BigInteger fraction(long above, long below) {
        return times(BigInteger.valueOf(above), BigInteger.valueOf(below).modInverse(P));
    }

    private static byte[] slice(byte[] signature, int from) {
        byte[] half = new byte[BYTES];
        System.arraycopy(signature, from, half, 0, BYTES);
        return half;
    }

    private static BigInteger integer(byte[] littleEndian) {
        byte[] turned = new byte[littleEndian.length];
        for (int i = 0; i < turned.length; i++) {
            turned[i] = littleEndian[turned.length - 1 - i];
        }
        return new BigInteger(1, turned);
    }

    private static byte[] littleEndian(BigInteger value) {
        byte[] big = value.toByteArray();
        byte[] bytes = new byte[BYTES];
        for (int i = 0; i < big.length && i < BYTES; i++) {
            bytes[i] = big[big.length - 1 - i];
        }
        return bytes;
    }

    private static byte[] sha512(byte[]... parts) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-512");
            for (byte[] part : parts) {
                digest.update(part);
            }
            return digest.digest();
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java has SHA-512", e);
        }
    }
}
