package io.antispoof.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.math.BigInteger;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.Signature;
import java.util.Arrays;
import java.util.Random;
import org.junit.Test;

public class Ed25519Test {
    private static final BigInteger ORDER =
            BigInteger.ONE.shiftLeft(252).add(new BigInteger("27742317777372353535851937790883648493"));
    private static final BigInteger P = BigInteger.ONE.shiftLeft(255).subtract(BigInteger.valueOf(19));

    /** RFC 8032, section 7.1: key, message, signature of tests 1, 2, 3 and SHA(abc). */
    private static final String[][] VECTORS = {
        {
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
                    + "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        },
        {
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                    + "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        },
        {
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                    + "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        },
        {
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
                    + "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
                    + "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        },
    };

    private static byte[] hex(String digits) {
        byte[] bytes = new byte[digits.length() / 2];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) Integer.parseInt(digits.substring(2 * i, 2 * i + 2), 16);
        }
        return bytes;
    }

    /** The answer of both implementations, which must be one. */
    private static boolean both(byte[] key, byte[] message, byte[] signature) {
        boolean portable = Ed25519Portable.verify(key, message, signature);
        assertEquals("the portable one and the platform's", portable, Ed25519.verify(key, message, signature));
        return portable;
    }

    @Test
    public void theVectorsOfTheStandard() {
        for (String[] vector : VECTORS) {
            byte[] signature = hex(vector[2]);
            assertTrue(both(hex(vector[0]), hex(vector[1]), signature));
            for (int bit = 0; bit < 512; bit += 37) {
                byte[] damaged = signature.clone();
                damaged[bit / 8] ^= 1 << bit % 8;
                assertFalse(both(hex(vector[0]), hex(vector[1]), damaged));
            }
        }
    }

    @Test
    public void whatTheJdkSigns() throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("Ed25519");
        Random random = new Random(7);
        for (int i = 0; i < 20; i++) {
            KeyPair pair = generator.generateKeyPair();
            byte[] encoded = pair.getPublic().getEncoded();
            byte[] key = Arrays.copyOfRange(encoded, encoded.length - 32, encoded.length);
            byte[] message = new byte[random.nextInt(300)];
            random.nextBytes(message);
            Signature signer = Signature.getInstance("Ed25519");
            signer.initSign(pair.getPrivate());
            signer.update(message);
            byte[] signature = signer.sign();
            assertTrue(both(key, message, signature));
            assertFalse("another message", both(key, Arrays.copyOf(message, message.length + 1), signature));
            assertFalse("another factor", both(key, message, unreduced(signature)));
            byte[] wrongKey = key.clone();
            wrongKey[random.nextInt(32)] ^= 1 << random.nextInt(8);
            assertFalse("another key", both(wrongKey, message, signature));
        }
    }

    @Test
    public void bytesOfNoPointAndNoKey() {
        Random random = new Random(8);
        for (int i = 0; i < 100; i++) {
            byte[] key = new byte[32];
            byte[] signature = new byte[64];
            random.nextBytes(key);
            random.nextBytes(signature);
            signature[63] &= 0x0f;
            assertFalse(both(key, new byte[5], signature));
        }
    }

    /**
     * With a key of small order, S = 0 and a fitting R solve the equation for some messages. Written with a y that is
     * not reduced, or with a sign of x = 0, the same points must not pass.
     */
    @Test
    public void pointsThatAreNotWrittenCanonically() {
        byte[] neutral = littleEndian(BigInteger.ONE);
        byte[] signature = new byte[64];
        System.arraycopy(neutral, 0, signature, 0, 32);
        assertTrue(Ed25519Portable.verify(neutral, new byte[1], signature));
        byte[][] others = {littleEndian(P.add(BigInteger.ONE)), negativeZero(neutral), littleEndian(P)};
        for (byte[] other : others) {
            byte[] written = signature.clone();
            System.arraycopy(other, 0, written, 0, 32);
            assertFalse("as R", both(neutral, new byte[1], written));
            assertFalse("as key", Ed25519Portable.verify(other, new byte[1], signature));
        }
    }

    @Test
    public void wrongLengthsAreRefused() {
        byte[] key = hex(VECTORS[0][0]);
        byte[] signature = hex(VECTORS[0][2]);
        for (int length : new int[] {0, 63, 65, 128}) {
            assertFalse(Ed25519.verify(key, new byte[0], Arrays.copyOf(signature, length)));
        }
        assertFalse(Ed25519.verify(Arrays.copyOf(key, 31), new byte[0], signature));
        assertFalse(Ed25519.verify(Arrays.copyOf(key, 33), new byte[0], signature));
    }

    private static byte[] negativeZero(byte[] neutral) {
        byte[] bytes = neutral.clone();
        bytes[31] |= (byte) 0x80;
        return bytes;
    }

    /** The same signature with S + order in place of S. */
    private static byte[] unreduced(byte[] signature) {
        byte[] turned = new byte[32];
        for (int i = 0; i < 32; i++) {
            turned[i] = signature[63 - i];
        }
        byte[] s = littleEndian(new BigInteger(1, turned).add(ORDER));
        byte[] other = signature.clone();
        System.arraycopy(s, 0, other, 32, 32);
        return other;
    }

    private static byte[] littleEndian(BigInteger value) {
        byte[] bytes = new byte[32];
        byte[] big = value.toByteArray();
        for (int i = 0; i < big.length && i < 32; i++) {
            bytes[i] = big[big.length - 1 - i];
        }
        return bytes;
    }
}
