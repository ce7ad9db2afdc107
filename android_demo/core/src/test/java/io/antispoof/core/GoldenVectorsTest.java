package io.antispoof.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.zip.CRC32;
import org.junit.Test;

/** The native core through JNI says what tests/golden/core.json says, to the bit. */
public class GoldenVectorsTest {
    private static final Path FOLDER = Paths.get(System.getProperty("antispoof.golden"));
    private static final int[] CHUNKS = {7, 441, 100_000};

    @Test
    public void everyEventHoweverTheSamplesCome() throws Exception {
        List<?> cases = (List<?>) core().get("cases");
        Set<Object> kinds = new HashSet<>();
        for (Object item : cases) {
            Map<?, ?> facts = (Map<?, ?>) item;
            for (int chunk : CHUNKS) {
                List<?> events = (List<?>) facts.get("events");
                List<Map<?, ?>> found = play(facts, chunk);
                assertEquals(facts.get("name") + " by " + chunk, events, found);
                found.forEach(event -> kinds.add(event.get("kind")));
            }
        }
        assertEquals("the cases reach windows and their absence", 2, kinds.size());
    }

    @Test
    public void illegalSettingsAreRefused() {
        StreamConfig config = new StreamConfig();
        config.hop = 0;
        try (SpeechStream stream = new SpeechStream(config)) {
            throw new AssertionError("made " + stream);
        } catch (IllegalArgumentException expected) {
            assertTrue(expected.getMessage().contains("refuses"));
        }
        Rules rules = new Rules();
        rules.scale = 0;
        try (Judge judge = new Judge(rules)) {
            throw new AssertionError("made " + judge);
        } catch (IllegalArgumentException expected) {
            assertTrue(expected.getMessage().contains("refuses"));
        }
    }

    @Test
    public void whatIsClosedOrFinishedSaysSo() {
        SpeechStream stream = new SpeechStream(new StreamConfig());
        stream.finish(GoldenVectorsTest::ignore);
        assertRefused(() -> stream.hear(new short[10], 10, GoldenVectorsTest::ignore));
        stream.close();
        stream.close();
        assertRefused(stream::time);
        Judge judge = new Judge(new Rules());
        judge.close();
        assertRefused(() -> judge.hear(0, 1));
    }

    @Test
    public void moreFramesThanSamplesAreRefused() {
        try (SpeechStream stream = new SpeechStream(new StreamConfig())) {
            stream.hear(new short[10], 11, GoldenVectorsTest::ignore);
            throw new AssertionError("heard what is not there");
        } catch (IllegalArgumentException expected) {
            assertTrue(expected.getMessage().contains("11 frames"));
        }
    }

    @Test
    public void aScoreThatIsNoNumberDecidesNothing() {
        try (Judge judge = new Judge(new Rules())) {
            judge.hear(Double.NaN, 1);
            throw new AssertionError("judged NaN");
        } catch (ScorerException expected) {
            assertTrue(expected.getMessage().contains("NaN"));
        }
    }

    private static void ignore(StreamEvent event, float[] window) {
        assertFalse(event.isWindow && window == null);
    }

    private static void assertRefused(Runnable call) {
        try {
            call.run();
        } catch (IllegalStateException expected) {
            return;
        }
        throw new AssertionError("a closed object answered");
    }

    private static Map<?, ?> core() throws Exception {
        return (Map<?, ?>) Json.parse(Files.readAllBytes(FOLDER.resolve("core.json")));
    }

    private static List<Map<?, ?>> play(Map<?, ?> facts, int chunk) throws Exception {
        StreamConfig config = config((Map<?, ?>) facts.get("config"));
        short[] pcm = pcm((String) facts.get("pcm"));
        long lose = (Long) facts.get("lose");
        List<Map<?, ?>> found = new ArrayList<>();
        try (SpeechStream stream = new SpeechStream(config);
                Judge judge = new Judge(rules((Map<?, ?>) facts.get("rules")))) {
            SpeechStream.Listener listener = (event, window) -> found.add(describe(event, window, judge));
            for (int i = 0; i < (Long) facts.get("repeat"); i++) {
                for (int from = 0; from < pcm.length; from += chunk * config.channels) {
                    int to = Math.min(pcm.length, from + chunk * config.channels);
                    short[] piece = java.util.Arrays.copyOfRange(pcm, from, to);
                    stream.hear(piece, piece.length / config.channels, listener);
                }
                if (lose > 0) {
                    stream.lose(lose, listener);
                }
            }
            stream.finish(listener);
        }
        return found;
    }

    private static Map<?, ?> describe(StreamEvent event, float[] window, Judge judge) {
        Map<String, Object> told = new java.util.HashMap<>();
        told.put("kind", event.isWindow ? "window" : "not enough");
        told.put("samples", (long) event.samples);
        told.put("start", event.start);
        told.put("end", event.end);
        told.put("speech", event.speech);
        told.put("turn", event.turn);
        told.put("position", event.position);
        if (window != null) {
            long crc = crc(window);
            Verdict verdict = judge.hear((crc % 2001 - 1000) / 250.0, event.end);
            told.put("crc32", crc);
            told.put("smoothed", verdict.smoothed);
            told.put("decision", verdict.decision.name().toLowerCase(java.util.Locale.ROOT));
            told.put("since", verdict.since);
        }
        return told;
    }

    private static long crc(float[] window) {
        ByteBuffer bytes = ByteBuffer.allocate(4 * window.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asFloatBuffer().put(window);
        CRC32 crc = new CRC32();
        crc.update(bytes.array());
        return crc.getValue();
    }

    static short[] pcm(Path file) throws Exception {
        byte[] bytes = Files.readAllBytes(file);
        short[] pcm = new short[bytes.length / 2];
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asShortBuffer().get(pcm);
        return pcm;
    }

    private static short[] pcm(String name) throws Exception {
        return pcm(FOLDER.resolve(name));
    }

    private static StreamConfig config(Map<?, ?> facts) {
        StreamConfig config = new StreamConfig();
        for (Map.Entry<?, ?> fact : facts.entrySet()) {
            int value = fact.getValue() instanceof Long ? ((Long) fact.getValue()).intValue() : 0;
            switch ((String) fact.getKey()) {
                case "sample_rate": config.sampleRate = value; break;
                case "channels": config.channels = value; break;
                case "window": config.window = value; break;
                case "hop": config.hop = value; break;
                case "first": config.first = value; break;
                case "min_speech": config.minSpeech = value; break;
                case "lead_in": config.leadIn = value; break;
                case "hang_over": config.hangOver = value; break;
                case "pause": config.pause = value; break;
                case "gate": config.gate = (Boolean) fact.getValue(); break;
                default: throw new AssertionError("core.json sets " + fact.getKey());
            }
        }
        return config;
    }

    private static Rules rules(Map<?, ?> facts) {
        Rules rules = new Rules();
        for (Map.Entry<?, ?> fact : facts.entrySet()) {
            double value = ((Number) fact.getValue()).doubleValue();
            switch ((String) fact.getKey()) {
                case "scale": rules.scale = value; break;
                case "offset": rules.offset = value; break;
                case "time_constant": rules.timeConstant = value; break;
                case "enter": rules.enter = value; break;
                case "exit": rules.exit = value; break;
                case "min_duration": rules.minDuration = (long) value; break;
                default: throw new AssertionError("core.json sets " + fact.getKey());
            }
        }
        return rules;
    }
}
