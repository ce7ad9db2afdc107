package io.antispoof.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.io.FileNotFoundException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.junit.Test;

/**
 * Embedded detectors in ONNX Runtime through JNI: the golden scores, and a whole recording, come out as in Python.
 *
 * <p>The folders named in {@code antispoof.detectors} hold a detector each; where {@code stream.pcm} lies in one,
 * {@code stream.jsonl} holds what runtimes/stream.py said of it, and its rate is the first thing in there.
 */
public class DetectorTest {
    private static final int CHUNK = 441;

    private static List<Path> folders() {
        List<Path> folders = new ArrayList<>();
        for (String name : System.getProperty("antispoof.detectors").split(":")) {
            folders.add(Paths.get(name));
        }
        return folders;
    }

    private static Detector load(Path folder) throws Refusal {
        return new DetectorFolder(filesOf(folder), new RememberedModels()).load();
    }

    private static DetectorFiles filesOf(Path folder) {
        return name -> {
            if (!Files.exists(folder.resolve(name))) {
                throw new FileNotFoundException(name);
            }
            InputStream in = Files.newInputStream(folder.resolve(name));
            return in;
        };
    }

    @Test
    public void goldenScores() throws Exception {
        for (Path folder : folders()) {
            Detector detector = load(folder);
            try (Scorer scorer = detector.open(1)) {
                double difference = detector.accept(scorer);
                System.out.println("\n" + detector.file() + " golden scores within " + difference);
                assertEquals(0, difference, detector.golden.tolerance);
            }
        }
    }

    @Test
    public void aWholeRecording() throws Exception {
        for (Path folder : folders()) {
            List<String> lines = Files.readAllLines(folder.resolve("stream.jsonl"));
            int rate = Integer.parseInt(lines.remove(0));
            Detector detector = load(folder);
            double tolerance = detector.golden.tolerance;
            List<Reading> readings = listen(detector, GoldenVectorsTest.pcm(folder.resolve("stream.pcm")), rate);
            assertEquals(lines.size(), readings.size());
            assertTrue("a recording of several windows", lines.size() > 3);
            for (int i = 0; i < lines.size(); i++) {
                compare((Map<?, ?>) Json.parse(lines.get(i).getBytes()), readings.get(i), tolerance);
            }
        }
    }

    private static void compare(Map<?, ?> expected, Reading found, double tolerance) {
        assertEquals((Double) expected.get("time"), found.seconds, 0);
        assertEquals((Double) expected.get("score"), found.score, tolerance);
        assertEquals(expected.containsKey("decision"), found.verdict != null);
        if (found.verdict != null) {
            assertEquals(expected.get("decision"), found.verdict.decision.name().toLowerCase(Locale.ROOT));
            assertEquals(expected.get("changed"), found.verdict.changed);
        }
        if (expected.containsKey("smoothed_llr")) {
            assertEquals((Double) expected.get("smoothed_llr"), found.verdict.smoothed, 10 * tolerance);
        }
    }

    private static List<Reading> listen(Detector detector, short[] pcm, int rate) {
        List<Reading> readings = new ArrayList<>();
        LiveDetector.Listener listener =
                new LiveDetector.Listener() {
                    @Override
                    public void level(double decibels) {
                        assertTrue(decibels <= 0.1 && decibels >= -120);
                    }

                    @Override
                    public void notEnough(double speechSeconds) {
                        assertTrue(speechSeconds < 1);
                    }

                    @Override
                    public void scored(Reading reading) {
                        assertTrue(reading.milliseconds > 0);
                        readings.add(reading);
                    }
                };
        try (Scorer scorer = detector.open(1);
                LiveDetector live = new LiveDetector(scorer, detector.manifest, rate, Clock.SYSTEM, listener)) {
            for (int from = 0; from < pcm.length; from += CHUNK) {
                short[] piece = Arrays.copyOfRange(pcm, from, Math.min(pcm.length, from + CHUNK));
                live.hear(piece, piece.length, 0);
            }
            live.finish();
        }
        return readings;
    }

    @Test
    public void oneTurnedBitInAnyFileIsRefused() throws Exception {
        Path folder = folders().get(0);
        String[] names = folder.toFile().list((dir, name) -> !name.startsWith("stream"));
        assertEquals("index, key, model, manifest, signature, two of golden", 7, names.length);
        for (String damaged : names) {
            byte[] content = Files.readAllBytes(folder.resolve(damaged));
            content[content.length / 2] ^= 4;
            DetectorFiles files =
                    name -> name.equals(damaged) ? new java.io.ByteArrayInputStream(content) : filesOf(folder).open(name);
            try {
                new DetectorFolder(files, new RememberedModels()).load();
                throw new AssertionError(damaged + " was changed and loaded");
            } catch (Refusal refused) {
                assertFalse(refused.getMessage().isEmpty());
            }
        }
    }

    @Test
    public void whatIsNoModelOrAnotherEndsInOneLine() throws Exception {
        Detector detector = load(folders().get(0));
        byte[][] wrong = {new byte[0], new byte[100], Arrays.copyOf(detector.model, 5_000)};
        for (byte[] bytes : wrong) {
            assertFails(bytes, detector.manifest);
        }
        String manifest = new String(Files.readAllBytes(folders().get(0).resolve(detector.file() + ".manifest.json")));
        for (String change : new String[] {"\"samples\": 64600>\"samples\": 64000", "\"waveform\">\"x\"", "\"score\"\n>\"y\"\n"}) {
            String[] parts = change.split(">");
            String other = manifest.replace(parts[0], parts[1]);
            if (!other.equals(manifest)) {
                assertFails(detector.model, Manifest.parse(other.getBytes(StandardCharsets.UTF_8), "m"));
            }
        }
        assertTrue(OnnxScorer.version().matches("\\d+\\.\\d+.*"));
    }

    private static void assertFails(byte[] model, Manifest manifest) {
        try (Scorer scorer = new OnnxScorer(model, manifest, 1)) {
            throw new AssertionError("opened " + scorer);
        } catch (ScorerException expected) {
            String message = expected.getMessage();
            assertTrue(message, message.startsWith("ONNX Runtime cannot open the model") && !message.contains("\n"));
        }
    }

    @Test
    public void aScorerIsUsedRightOrSaysSo() throws Exception {
        Scorer scorer = load(folders().get(0)).open(1);
        try {
            scorer.score(new float[10]);
            throw new AssertionError("scored ten samples");
        } catch (IllegalArgumentException expected) {
            assertTrue(expected.getMessage().startsWith("10 samples"));
        }
        scorer.close();
        scorer.close();
        try {
            scorer.score(new float[64_600]);
            throw new AssertionError("scored after the end");
        } catch (IllegalStateException expected) {
            assertTrue(expected.getMessage().contains("closed"));
        }
    }

    @Test
    public void aBenchmarkWritesWhatTheToolchainReads() throws Exception {
        Path folder = folders().get(0);
        Benchmark.Plan plan = new Benchmark.Plan(1, 20, 2);
        List<String> said = new ArrayList<>();
        Benchmark benchmark =
                new Benchmark(load(folder), plan, new HostDevice(), Clock.SYSTEM, "test 0", said::add);
        Benchmark.Result result = benchmark.run();
        assertTrue(result.summary, result.summary.contains("golden scores within"));
        assertEquals(2, said.size());
        Path out = Paths.get(System.getProperty("antispoof.out"));
        Files.write(out.resolve("on-device.json"), result.resultFile.getBytes(StandardCharsets.UTF_8));
        Files.write(out.resolve("answer.json"), result.answer.getBytes(StandardCharsets.UTF_8));
    }

    @Test
    public void aBenchmarkThatIsLeftEnds() throws Exception {
        List<String> said = new ArrayList<>();
        Benchmark[] running = new Benchmark[1];
        Benchmark.Progress leave =
                line -> {
                    said.add(line);
                    running[0].stop();
                };
        Benchmark.Plan plan = new Benchmark.Plan(1, 2, 100);
        running[0] = new Benchmark(load(folders().get(0)), plan, new HostDevice(), Clock.SYSTEM, "test 0", leave);
        try {
            running[0].run();
            throw new AssertionError("ran on for " + said.size() + " blocks");
        } catch (Refusal left) {
            assertTrue(left.getMessage().startsWith("the benchmark was left"));
        }
        assertEquals(1, said.size());
    }

    private static final class HostDevice implements Device {
        @Override
        public Map<String, Object> facts() {
            return Collections.singletonMap("model", "the JVM of a test");
        }

        @Override
        public Map<String, Object> state() {
            return Collections.emptyMap();
        }

        @Override
        public Integer thermalStatus() {
            return 0;
        }

        @Override
        public long peakRssKib() {
            return 1024;
        }
    }
}
