package io.antispoof.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.Before;
import org.junit.Test;

/** What is not exactly as it was signed is refused in a sentence, and nothing behind it is opened. */
public class DetectorFolderTest {
    private static final String ZEROS_SHA256 = "51caf7b38565c412ec8e8f757ef1d80f3469a778b903c42532bc5e525a42f216";

    private final RememberedModels accepted = new RememberedModels();
    private SignedDetector folder;

    @Before
    public void makeFolder() throws Exception {
        folder = new SignedDetector();
    }

    private Detector load() throws Refusal {
        folder.opened.clear();
        return new DetectorFolder(folder, accepted).load();
    }

    private String refusal() {
        try {
            load();
        } catch (Refusal refused) {
            String sentence = refused.getMessage();
            assertTrue(sentence, sentence.contains("; ") && !sentence.contains("\n") && sentence.length() < 220);
            return sentence;
        }
        throw new AssertionError("it was loaded");
    }

    @Test
    public void aWholeFolderLoads() throws Exception {
        Detector detector = load();
        assertEquals("m.onnx", detector.file());
        assertEquals(20, detector.manifest.samples);
        assertEquals(3, detector.manifest.modelVersion);
        Rules rules = Rules.of(detector.manifest);
        assertEquals("2 * 0.25 - 1 less the margin", -1.0, rules.enter, 0);
        assertEquals(0.0, rules.exit, 0);
    }

    @Test
    public void filesAreOpenedInTheOrderOfTrust() throws Exception {
        load();
        assertEquals(
                Arrays.asList(
                        "detector.json",
                        "m.onnx.manifest.json",
                        "trusted-key.pub",
                        "m.onnx.manifest.json.sig",
                        "m.onnx",
                        "m.onnx.golden.json",
                        "m.onnx.golden.f32"),
                folder.opened);
    }

    @Test
    public void everyFileIsNeeded() throws Exception {
        for (String name : new ArrayList<>(folder.files.keySet())) {
            byte[] content = folder.files.remove(name);
            String sentence = refusal();
            assertTrue(sentence, sentence.startsWith(name + " is missing"));
            assertEquals("nothing was opened behind it", name, last(folder.opened));
            folder.files.put(name, content);
        }
        load();
    }

    @Test
    public void aBitTurnedAnywhereIsRefused() throws Exception {
        index("{\"schema\": 1, \"files\": [\"m.onnx\"]}\n"); // names of files for other apps are no matter of this one
        for (String name : new ArrayList<>(folder.files.keySet())) {
            byte[] content = folder.files.get(name);
            for (int i = 0; i < content.length; i++) {
                byte[] damaged = content.clone();
                damaged[i] ^= 1 << i % 8;
                folder.files.put(name, damaged);
                refusal();
            }
            for (int length : new int[] {0, content.length - 1, content.length + 1}) {
                folder.files.put(name, Arrays.copyOf(content, length));
                refusal();
            }
            folder.files.put(name, content);
        }
        load();
    }

    @Test
    public void anotherKeysSignatureIsRefused() throws Exception {
        folder.files.put("trusted-key.pub", new SignedDetector().files.get("trusted-key.pub"));
        assertTrue(refusal().contains("is not signed by the trusted key"));
        assertFalse(folder.opened.contains("m.onnx"));
    }

    @Test
    public void anOlderVersionIsRefusedAndANewerOneIsNot() throws Exception {
        accepted.accept("toy", 4);
        assertTrue(refusal().contains("older than the one already used (4)"));
        folder.sign(folder.manifest().replace("\"model_version\": 3", "\"model_version\": 5"));
        load();
        accepted.accept("toy", 5);
        load();
    }

    @Test
    public void onlyPlainNamesAreInTheIndex() throws Exception {
        String[] hostile = {"../m.onnx", "a/m.onnx", "a\\\\m.onnx", "..", ".onnx", "", "a..onnx", "a\\u0000.onnx"};
        for (String name : hostile) {
            index("{\"schema\": 1, \"files\": [\"" + name + "\"]}\n");
            assertTrue(refusal().startsWith("detector.json: files holds"));
            assertEquals(1, folder.opened.size());
        }
    }

    @Test
    public void theIndexNamesSomethingThatRunsHere() throws Exception {
        String[] wrong = {
            "{\"schema\": 1, \"files\": []}", "{\"schema\": 1, \"files\": [\"m.tflite\"]}", "{\"schema\": 2}", "[]",
            "{\"schema\": 1}", "{\"schema\": 1, \"files\": [1]}", "{\"schema\": 1, \"files\": {}}", "nothing",
        };
        for (String text : wrong) {
            index(text);
            assertTrue(refusal().startsWith("detector.json"));
        }
    }

    private void index(String json) {
        folder.files.put("detector.json", json.getBytes(StandardCharsets.UTF_8));
    }

    @Test
    public void aSignedManifestIsStillReadWithCare() throws Exception {
        String good = folder.manifest();
        String[][] changes = {
            {"\"schema\": 1", "\"schema\": 2"},
            {"\"samples\": 20", "\"samples\": 0"},
            {"\"samples\": 20", "\"samples\": 960001"},
            {"\"samples\": 20", "\"samples\": 20.0"},
            {"\"samples\": 20", "\"samples\": true"},
            {"\"samples\": 20", "\"samples\": \"20\""},
            {"\"samples\": 20", "\"samples\": 99999999999999999999"},
            {"\"samples\": 20", "\"samples\": 21"},
            {"16000", "8000"},
            {"higher is", "lower is"},
            {"\"float32\", \"length", "\"float64\", \"length"},
            {"tile when shorter", "pad when shorter"},
            {"[\"spoof\", \"bonafide\"]", "[\"bonafide\", \"spoof\"]"},
            {"\"batch\": 1", "\"batch\": 2"},
            {"\"scale\": 2.0", "\"scale\": 0"},
            {"\"scale\": 2.0", "\"scale\": -2.0"},
            {"\"offset\": -1.0", "\"offset\": 1e999"},
            {"\"offset\": -1.0", "\"offset\": NaN"},
            {"\"offset\": -1.0", "\"offset\": -1e10"},
            {"\"score\": 0.25", "\"score\": \"0.25\""},
            {"\"model_version\": 3", "\"model_version\": -1"},
            {"\"model_version\": 3", "\"model_version\": null"},
            {"\"bytes\": 15", "\"bytes\": 16"},
            {"\"bytes\": 15", "\"bytes\": 9000000000"},
            {"\"name\": \"m.onnx\"", "\"name\": \"n.onnx\""},
            {"\"format\": \"onnx\"", "\"format\": \"tflite\""},
            {"\"golden_sha256\": \"", "\"golden_sha256\": \"0"},
            {"\"thresholds\": [", "\"thresholds\": 1, \"x\": ["},
            {"\"model\": \"toy\"", "\"model\": [\"toy\"]"},
            {"{\"schema\"", "[{\"schema\""},
        };
        for (String[] change : changes) {
            assertTrue(change[0], good.contains(change[0]));
            folder.sign(good.replace(change[0], change[1]));
            refusal();
        }
        folder.sign(good.replace("\"batch\": 1", "\"batch\": null"));
        load();
    }

    @Test
    public void decisionsAreThoseThatPythonReads() throws Exception {
        Path bounds = Paths.get(System.getProperty("antispoof.golden"), "bounds.json");
        String good = folder.manifest();
        for (Object item : (List<?>) Json.parse(Files.readAllBytes(bounds))) {
            Map<?, ?> row = (Map<?, ?>) item;
            Object score = row.get("score");
            String scale = "\"scale\": " + row.get("scale") + ", \"offset\": " + row.get("offset") + ", \"data\": \"x\"}";
            String calibration = "\"calibration\": " + (row.get("scale") == null ? "null" : "{" + scale);
            String points = score == null ? "[]" : "[{\"name\": \"eer\", \"score\": " + score + "}]";
            String manifest =
                    good.replaceAll("\"calibration\": .*?}", calibration)
                            .replaceAll("\"thresholds\": \\[.*?]", "\"thresholds\": " + points);
            folder.sign(manifest);
            if (row.get("legal").equals(true)) {
                Rules rules = Rules.of(load().manifest);
                new Judge(rules).close(); // the core takes them too
            } else {
                assertTrue(manifest, refusal().matches(".*(beyond all bounds|scale is not positive).*"));
            }
        }
    }

    @Test
    public void aManifestOfAMegabyteIsNone() throws Exception {
        char[] spaces = new char[1 << 20];
        Arrays.fill(spaces, ' ');
        folder.sign(folder.manifest() + new String(spaces));
        assertTrue(refusal().contains("longer than it may be"));
    }

    /** The heap of these tests is one of 256 MB, as many phones give an app (scripts/test-host.sh). */
    @Test
    public void aModelMayFillHalfOfTheHeapAndOneThatDoesNotFitIsRefused() throws Exception {
        int size = 130_000_000;
        String described = "\"bytes\": " + size + ", \"sha256\": \"" + ZEROS_SHA256;
        folder.sign(folder.manifest().replaceAll("\"bytes\": 15, \"sha256\": \"[0-9a-f]+", described));
        DetectorFiles files = name -> name.equals(SignedDetector.MODEL) ? new Zeros(size) : folder.open(name);
        assertEquals(size, new DetectorFolder(files, accepted).load().bytes());

        folder.sign(folder.manifest().replace("\"bytes\": " + size, "\"bytes\": 500000000"));
        assertTrue(refusal().startsWith("m.onnx does not fit into the memory"));
    }

    /** A file of zeros that takes no memory. */
    private static final class Zeros extends InputStream {
        private int left;

        Zeros(int length) {
            left = length;
        }

        @Override
        public int read() {
            return left-- > 0 ? 0 : -1;
        }

        @Override
        public int read(byte[] into, int from, int most) {
            if (left <= 0) {
                return -1;
            }
            int count = Math.min(most, left);
            left -= count;
            return count;
        }
    }

    @Test
    public void goldenScoresDecideWhetherAVersionIsAccepted() throws Exception {
        Detector detector = load();
        try {
            detector.accept(new Fixed(0.5f, -0.4f));
            throw new AssertionError("accepted");
        } catch (Refusal off) {
            assertTrue(off.getMessage().contains("golden clip 1"));
        }
        try {
            detector.accept(new Fixed(Float.NaN, -0.5f));
            throw new AssertionError("accepted");
        } catch (Refusal off) {
            assertTrue(off.getMessage().contains("golden clip 0"));
        }
        assertTrue("nothing was accepted", accepted.versions.isEmpty());
        assertEquals(0.0005, detector.accept(new Fixed(0.5005f, -0.5f)), 1e-6);
        assertEquals(3, accepted.version("toy"));
        try {
            load().accept(new Fixed(0.5f, -0.4f));
            throw new AssertionError("accepted by what now runs it, because what ran it before was right");
        } catch (Refusal off) {
            assertTrue(off.getMessage().contains("golden clip 1"));
        }
    }

    /** Gives scores in turn. */
    private static final class Fixed implements Scorer {
        private final float[] scores;
        private int next;

        Fixed(float... scores) {
            this.scores = scores;
        }

        @Override
        public float score(float[] window) {
            return scores[next++];
        }

        @Override
        public void close() {}
    }

    private static String last(List<String> lines) {
        return lines.get(lines.size() - 1);
    }
}
