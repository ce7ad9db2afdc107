package io.antispoof.core;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.List;

/**
 * Loads the detector of a folder that {@code antispoof embed android} wrote.
 *
 * <p>Nothing is believed before it is covered: the trusted key signs the manifest, the manifest holds the
 * sha256 of the model file and of the golden scores, and those hold the sha256 of the golden clips.
 */
public final class DetectorFolder {
    static final String INDEX = "detector.json";
    static final String KEY = "trusted-key.pub";
    private static final String SUFFIX = ".onnx";
    private static final int MAX_SMALL_BYTES = 1 << 16;
    private static final byte[] SIGNED_PREFIX = "antispoof manifest 1\n".getBytes(StandardCharsets.US_ASCII);
    private static final String BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    private final DetectorFiles files;
    private final AcceptedModels accepted;

    public DetectorFolder(DetectorFiles files, AcceptedModels accepted) {
        this.files = files;
        this.accepted = accepted;
    }

    /**
     * Returns the first detector that this app can run.
     *
     * <ol>
     *   <li>read the index: which files there are
     *   <li>verify the signature of the manifest
     *   <li>read the manifest
     *   <li>verify the model file
     *   <li>refuse a version older than one that was accepted
     *   <li>verify the golden scores, for {@link Detector#accept}
     * </ol>
     *
     * @throws Refusal one of these failed; nothing behind it was opened
     */
    public Detector load() throws Refusal {
        String name = choose(); // 1
        String manifestName = name + ".manifest.json";
        byte[] manifestBytes = read(manifestName, Manifest.MAX_BYTES);
        verifySignature(manifestName, manifestBytes); // 2
        Manifest manifest = Manifest.parse(manifestBytes, manifestName); // 3
        if (!manifest.fileName.equals(name) || !manifest.format.equals("onnx")) {
            throw new Refusal(manifestName + " belongs to " + manifest.fileName + "; embed the detector again");
        }
        byte[] model = readExactly(name, manifest.fileBytes, manifest.fileSha256, manifestName); // 4
        checkVersion(manifest); // 5
        return new Detector(manifest, model, golden(name, manifest), accepted); // 6
    }

    private String choose() throws Refusal {
        byte[] content = read(INDEX, MAX_SMALL_BYTES);
        Fields index = Fields.parse(content, INDEX);
        index.integer("schema", 1, 1);
        List<?> names = index.list("files");
        String chosen = null;
        StringBuilder text = new StringBuilder();
        for (Object name : names) {
            if (!(name instanceof String) || !isPlain((String) name)) {
                throw index.wrong("files", "holds something that is not a plain file name");
            }
            if (chosen == null && ((String) name).endsWith(SUFFIX)) {
                chosen = (String) name;
            }
            text.append(text.length() == 0 ? "" : ", ").append('"').append(name).append('"');
        }
        // The list has no signature of its own: only the bytes that embed writes are taken.
        String exact = "{\"schema\": 1, \"files\": [" + text + "]}\n";
        if (!Arrays.equals(content, exact.getBytes(StandardCharsets.UTF_8))) {
            throw new Refusal(INDEX + " is not as it was written; embed the detector again");
        }
        if (chosen == null) {
            throw new Refusal(INDEX + " lists no " + SUFFIX + " file, which is what this app runs; embed one");
        }
        return chosen;
    }

    static boolean isPlain(String name) {
        boolean plain = !name.isEmpty() && name.length() <= 200 && name.charAt(0) != '.' && !name.contains("..");
        for (int i = 0; i < name.length() && plain; i++) {
            char c = name.charAt(i);
            plain = c >= ' ' && c != '/' && c != '\\';
        }
        return plain;
    }

    private void verifySignature(String name, byte[] manifest) throws Refusal {
        byte[] key = decodeKey(new String(read(KEY, MAX_SMALL_BYTES), StandardCharsets.ISO_8859_1));
        byte[] signature = read(name + ".sig", Ed25519.SIGNATURE_BYTES);
        byte[] signed = new byte[SIGNED_PREFIX.length + manifest.length];
        System.arraycopy(SIGNED_PREFIX, 0, signed, 0, SIGNED_PREFIX.length);
        System.arraycopy(manifest, 0, signed, SIGNED_PREFIX.length, manifest.length);
        if (!Ed25519.verify(key, signed, signature)) {
            throw new Refusal(name + " is not signed by the trusted key; sign the detector and embed it again");
        }
    }

    /** Reads one line of base64 for 32 bytes; java.util's decoder is not in Android 7. */
    static byte[] decodeKey(String line) throws Refusal {
        Refusal refusal = new Refusal(KEY + " is not the base64 of a public key; embed the detector again");
        if (line.length() != 45 || !line.endsWith("=\n")) {
            throw refusal;
        }
        byte[] key = new byte[Ed25519.KEY_BYTES];
        int bits = 0;
        for (int i = 0; i < 43; i++) {
            int digit = BASE64.indexOf(line.charAt(i));
            if (digit < 0) {
                throw refusal;
            }
            bits = bits << 6 | digit;
            int have = 6 * (i + 1) % 8; // bits that belong to the next byte
            if (have < 6) {
                key[6 * (i + 1) / 8 - 1] = (byte) (bits >> have);
            }
        }
        if ((bits & 3) != 0) { // the two bits that no byte takes
            throw refusal;
        }
        return key;
    }

    private void checkVersion(Manifest manifest) throws Refusal {
        long highest = accepted.version(manifest.model);
        if (manifest.modelVersion < highest) {
            throw new Refusal(
                    manifest.fileName
                            + " is version "
                            + manifest.modelVersion
                            + ", older than the one already used ("
                            + highest
                            + "); embed a newer one");
        }
    }

    private Golden golden(String name, Manifest manifest) throws Refusal {
        String scoresName = name + ".golden.json";
        byte[] scores = read(scoresName, Manifest.MAX_BYTES);
        checkSha256(scoresName, scores, manifest.goldenSha256, name + ".manifest.json");
        Golden golden = Golden.parse(scores, scoresName, manifest);
        golden.setWaveforms(readExactly(name + ".golden.f32", golden.bytes(), golden.sha256, scoresName));
        return golden;
    }

    private byte[] readExactly(String name, long bytes, String sha256, String source) throws Refusal {
        byte[] content = read(name, (int) bytes); // Manifest and Golden bound it
        if (content.length != bytes) {
            throw changed(name, source);
        }
        checkSha256(name, content, sha256, source);
        return content;
    }

    private static void checkSha256(String name, byte[] content, String sha256, String source) throws Refusal {
        StringBuilder hex = new StringBuilder();
        for (byte b : digest(content)) {
            hex.append(Character.forDigit(b >> 4 & 15, 16)).append(Character.forDigit(b & 15, 16));
        }
        if (!sha256.contentEquals(hex)) {
            throw changed(name, source);
        }
    }

    private static Refusal changed(String name, String source) {
        return new Refusal(name + " is not the file that " + source + " describes; embed the detector again");
    }

    private static byte[] digest(byte[] content) {
        try {
            return MessageDigest.getInstance("SHA-256").digest(content);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java has SHA-256", e);
        }
    }

    /**
     * Returns a file's content; one that is larger than {@code most} is refused without being read.
     *
     * <p>Into one array made at once: one that grows takes three times as much of the little that phones give.
     */
    private byte[] read(String name, int most) throws Refusal {
        try (InputStream in = files.open(name)) {
            byte[] content = new byte[most];
            int length = 0;
            for (int count = 0; count >= 0 && length < most; length += Math.max(count, 0)) {
                count = in.read(content, length, most - length);
            }
            if (in.read() >= 0) {
                throw new Refusal(name + " is longer than it may be; embed the detector again");
            }
            return length == most ? content : Arrays.copyOf(content, length);
        } catch (FileNotFoundException e) {
            throw new Refusal(name + " is missing; run 'antispoof embed android MODEL'");
        } catch (IOException e) {
            throw new Refusal(name + " cannot be read; install the app again");
        } catch (OutOfMemoryError e) {
            throw new Refusal(name + " does not fit into the memory that this phone gives an app; embed a smaller one");
        }
    }
}
