package io.antispoof.core;

import java.io.ByteArrayInputStream;
import java.io.FileNotFoundException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.MessageDigest;
import java.security.Signature;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A detector folder in memory, signed by a key of its own; its model is a few bytes that nothing runs. */
final class SignedDetector implements DetectorFiles {
    static final String MODEL = "m.onnx";
    static final String MANIFEST = MODEL + ".manifest.json";

    final Map<String, byte[]> files = new LinkedHashMap<>();
    final List<String> opened = new ArrayList<>();
    private final KeyPair pair;

    SignedDetector() throws Exception {
        pair = KeyPairGenerator.getInstance("Ed25519").generateKeyPair();
        byte[] encoded = pair.getPublic().getEncoded();
        byte[] key = Arrays.copyOfRange(encoded, encoded.length - 32, encoded.length);
        byte[] clips = new byte[2 * 4 * 20];
        String golden =
                "{\"schema\": 1, \"input\": \"waveform\", \"output\": \"score\", \"clips\": 2, \"samples\": 20, "
                        + "\"scores\": [0.5, -0.5], \"tolerance\": 0.001, \"sha256\": \""
                        + sha256(clips)
                        + "\"}\n";
        files.put("detector.json", "{\"schema\": 1, \"files\": [\"m.tflite\", \"m.onnx\"]}\n".getBytes());
        files.put("trusted-key.pub", (Base64.getEncoder().encodeToString(key) + "\n").getBytes());
        files.put(MODEL, "no model at all".getBytes());
        files.put(MODEL + ".golden.json", golden.getBytes());
        files.put(MODEL + ".golden.f32", clips);
        sign(manifest(golden));
    }

    private String manifest(String golden) throws Exception {
        return "{\"schema\": 1, \"model\": \"toy\", \"format\": \"onnx\", \"precision\": \"float32\", "
                + "\"recipe\": \"none\", \"licence\": \"MIT\", \"model_version\": 3, "
                + "\"input\": {\"name\": \"waveform\", \"batch\": 1, \"samples\": 20, \"sample_rate\": 16000, "
                + "\"dtype\": \"float32\", \"length_rule\": \"tile when shorter, head when longer\"}, "
                + "\"output\": {\"name\": \"score\", \"dtype\": \"float32\", \"polarity\": \"higher is bona fide\", "
                + "\"labels\": [\"spoof\", \"bonafide\"]}, "
                + "\"calibration\": {\"scale\": 2.0, \"offset\": -1.0, \"data\": \"x\"}, "
                + "\"thresholds\": [{\"name\": \"eer\", \"score\": 0.25, \"data\": \"x\"}], "
                + "\"file\": {\"name\": \"m.onnx\", \"bytes\": 15, \"sha256\": \""
                + sha256(files.get(MODEL))
                + "\"}, \"golden_sha256\": \""
                + sha256(golden.getBytes())
                + "\"}\n";
    }

    String manifest() {
        return new String(files.get(MANIFEST), StandardCharsets.UTF_8);
    }

    /** Puts a manifest in place with its signature, as only the owner of the key can. */
    void sign(String manifest) throws Exception {
        byte[] bytes = manifest.getBytes(StandardCharsets.UTF_8);
        Signature signer = Signature.getInstance("Ed25519");
        signer.initSign(pair.getPrivate());
        signer.update("antispoof manifest 1\n".getBytes());
        signer.update(bytes);
        files.put(MANIFEST, bytes);
        files.put(MANIFEST + ".sig", signer.sign());
    }

    private static String sha256(byte[] content) throws Exception {
        StringBuilder hex = new StringBuilder();
        for (byte b : MessageDigest.getInstance("SHA-256").digest(content)) {
            hex.append(String.format("%02x", b));
        }
        return hex.toString();
    }

    @Override
    public InputStream open(String name) throws FileNotFoundException {
        opened.add(name);
        byte[] content = files.get(name);
        if (content == null) {
            throw new FileNotFoundException(name);
        }
        return new ByteArrayInputStream(content);
    }
}
