package io.antispoof.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import org.junit.Test;

public class JsonTest {
    private static Object parse(String text) throws Json.Malformed {
        return Json.parse(text.getBytes(StandardCharsets.UTF_8));
    }

    @Test
    public void valuesBecomeWhatTheyAre() throws Exception {
        Map<?, ?> all = (Map<?, ?>) parse(" {\"a\": [1, -2.5, 1e2, true, false, null], \"\\u00e9\\n\": \"\\ud83d\\ude00\"} ");
        assertEquals(Arrays.asList(1L, -2.5, 100.0, true, false, null), all.get("a"));
        assertEquals("\ud83d\ude00", all.get("\u00e9\n"));
        assertEquals(Long.MIN_VALUE, parse("-9223372036854775808"));
        assertEquals(9223372036854775808.0, parse("9223372036854775808"));
        assertEquals("-0", 0L, parse("-0"));
        assertNull(parse("null"));
    }

    @Test
    public void whatIsNotJsonIsRefused() {
        String[] wrong = {
            "", " ", "{", "}", "[1,]", "{\"a\":1,}", "{a:1}", "{'a':1}", "01", "1.", ".5", "+1", "1e", "0x10", "NaN",
            "Infinity", "-Infinity", "1e999", "tru", "truex", "[1 2]", "\"", "\"\\x\"", "\"\\u12g4\"", "\"\\u12\"",
            "\"\\ud800\"", "\"\\udc00\\ud800\"", "\"\t\"", "\"\0\"", "{} {}", "[] x", "/**/1", "{\"a\":1,\"a\":1}",
            "\ufeff1", "\u0660", "{\"a\" 1}", "{1:1}", "--1", "-",
        };
        for (String text : wrong) {
            try {
                throw new AssertionError(text + " became " + parse(text));
            } catch (Json.Malformed expected) {
                assertTrue(expected.getMessage().length() > 5);
            }
        }
    }

    @Test
    public void bytesThatAreNoTextAreRefused() {
        for (byte[] bytes : new byte[][] {{'"', (byte) 0x80, '"'}, {'"', (byte) 0xc0, (byte) 0x80, '"'}, {(byte) 0xff}}) {
            try {
                throw new AssertionError("became " + Json.parse(bytes));
            } catch (Json.Malformed expected) {
                assertEquals("not UTF-8", expected.getMessage());
            }
        }
    }

    @Test
    public void depthEndsBeforeTheStackDoes() throws Exception {
        char[] brackets = new char[100_000];
        Arrays.fill(brackets, '[');
        try {
            throw new AssertionError("became " + parse(new String(brackets)));
        } catch (Json.Malformed expected) {
            assertTrue(expected.getMessage().startsWith("nested too deep"));
        }
        parse(new String(new char[60]).replace("\0", "[") + new String(new char[60]).replace("\0", "]"));
    }

    @Test
    public void damageIsRefusedOrReadButNeverAnythingElse() {
        byte[] good = "{\"a\": [1, 2.5e-3, \"x\\u00e9\"], \"b\": {\"c\": null, \"d\": true}}".getBytes(StandardCharsets.UTF_8);
        Random random = new Random(4);
        int refused = 0;
        for (int i = 0; i < 20_000; i++) {
            byte[] damaged = Arrays.copyOf(good, random.nextInt(4) == 0 ? random.nextInt(good.length) : good.length);
            for (int j = random.nextInt(3); j >= 0 && damaged.length > 0; j--) {
                damaged[random.nextInt(damaged.length)] = (byte) random.nextInt(256);
            }
            try {
                Json.parse(damaged);
            } catch (Json.Malformed expected) {
                refused++;
            }
        }
        assertTrue(refused > 10_000);
    }

    @Test
    public void whatIsWrittenIsReadAgain() throws Exception {
        Map<String, Object> value = new LinkedHashMap<>();
        value.put("a\"\\\n\u00e9", Arrays.asList(1L, 0.1, -1e-300, true, null, "\ud83d\ude00"));
        value.put("empty", new LinkedHashMap<>());
        assertEquals(value, parse(JsonText.of(value)));
    }

    @Test(expected = IllegalArgumentException.class)
    public void noJsonHasNoNumber() {
        JsonText.of(Double.NaN);
    }
}
