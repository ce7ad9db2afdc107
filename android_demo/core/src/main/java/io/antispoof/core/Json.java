package io.antispoof.core;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Reads JSON (RFC 8259) that may be hostile: nothing lenient, nothing deep, nothing twice.
 *
 * <p>Android's own org.json is lenient and exists on Android only, where these tests do not run. Objects become
 * Map, arrays List, numbers Long where they are written as integers that fit, else Double; null is null.
 */
final class Json {
    private static final int MAX_DEPTH = 64;

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** That bytes are not JSON, or JSON that nobody writes in earnest. */
    static final class Malformed extends Exception {
        private static final long serialVersionUID = 1L;

        Malformed(String message) {
            super(message);
        }
    }

    /** Returns what UTF-8 bytes say. */
    static Object parse(byte[] utf8) throws Malformed {
        Json json = new Json(decode(utf8));
        Object value = json.value(0);
        json.skipSpace();
        if (json.at < json.text.length()) {
            throw json.wrong("something follows the value");
        }
        return value;
    }

    private static String decode(byte[] utf8) throws Malformed {
        try {
            return StandardCharsets.UTF_8
                    .newDecoder()
                    .onMalformedInput(CodingErrorAction.REPORT)
                    .onUnmappableCharacter(CodingErrorAction.REPORT)
                    .decode(ByteBuffer.wrap(utf8))
                    .toString();
        } catch (CharacterCodingException e) {
            throw new Malformed("not UTF-8");
        }
    }

    private Malformed wrong(String what) {
        return new Malformed(what + " at character " + at);
    }

    private void skipSpace() {
        while (at < text.length() && " \t\n\r".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private boolean take(char wanted) {
        if (at < text.length() && text.charAt(at) == wanted) {
            at++;
            return true;
        }
        return false;
    }

    private void expect(char wanted) throws Malformed {
        if (!take(wanted)) {
            throw wrong("no '" + wanted + "'");
        }
    }

    private Object value(int depth) throws Malformed {
        if (depth > MAX_DEPTH) {
            throw wrong("nested too deep");
        }
        skipSpace();
        if (at == text.length()) {
            throw wrong("it ends too early");
        }
        switch (text.charAt(at)) {
            case '{':
                return object(depth);
            case '[':
                return array(depth);
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Object word(String word, Object value) throws Malformed {
        if (!text.startsWith(word, at)) {
            throw wrong("no value");
        }
        at += word.length();
        return value;
    }

    private Map<String, Object> object(int depth) throws Malformed {
        Map<String, Object> members = new LinkedHashMap<>();
        expect('{');
        skipSpace();
        if (take('}')) {
            return members;
        }
        do {
            skipSpace();
            String name = string();
            skipSpace();
            expect(':');
            Object value = value(depth + 1);
            // Which of two counts is a matter of the reader, and two readers must not differ on signed facts.
            if (members.containsKey(name)) {
                throw wrong("a name stands twice");
            }
            members.put(name, value);
            skipSpace();
        } while (take(','));
        expect('}');
        return members;
    }

    private List<Object> array(int depth) throws Malformed {
        List<Object> items = new ArrayList<>();
        expect('[');
        skipSpace();
        if (take(']')) {
            return items;
        }
        do {
            items.add(value(depth + 1));
            skipSpace();
        } while (take(','));
        expect(']');
        return items;
    }

    private String string() throws Malformed {
        StringBuilder out = new StringBuilder();
        expect('"');
        while (!take('"')) {
            if (at == text.length()) {
                throw wrong("a string does not end");
            }
            char c = text.charAt(at++);
            if (c < ' ') {
                throw wrong("a control character in a string");
            }
            out.append(c == '\\' ? escaped() : c);
        }
        checkSurrogates(out);
        return out.toString();
    }

    private char escaped() throws Malformed {
        char c = at < text.length() ? text.charAt(at++) : ' ';
        int which = "\"\\/bfnrt".indexOf(c);
        if (which >= 0) {
            return "\"\\/\b\f\n\r\t".charAt(which);
        }
        if (c != 'u' || at + 4 > text.length()) {
            throw wrong("no such escape");
        }
        int code = 0;
        for (int end = at + 4; at < end; at++) {
            int digit = "0123456789abcdef".indexOf(Character.toLowerCase(text.charAt(at)));
            if (digit < 0) {
                throw wrong("no such escape");
            }
            code = code << 4 | digit;
        }
        return (char) code;
    }

    private void checkSurrogates(CharSequence s) throws Malformed {
        for (int i = 0; i < s.length(); i++) {
            char c = s.charAt(i);
            boolean pair = i + 1 < s.length() && Character.isSurrogatePair(c, s.charAt(i + 1));
            if (Character.isSurrogate(c) && !pair) {
                throw wrong("half a character in a string");
            }
            i += pair ? 1 : 0;
        }
    }

    private Object number() throws Malformed {
        int from = at;
        take('-');
        if (!take('0')) {
            digits();
        }
        boolean integer = true;
        if (take('.')) {
            digits();
            integer = false;
        }
        if (take('e') || take('E')) {
            if (!take('+')) {
                take('-');
            }
            digits();
            integer = false;
        }
        return toNumber(text.substring(from, at), integer);
    }

    private void digits() throws Malformed {
        int from = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
        if (at == from) {
            throw wrong("no value");
        }
    }

    private Object toNumber(String written, boolean integer) throws Malformed {
        if (integer) {
            try {
                return Long.valueOf(written);
            } catch (NumberFormatException tooLong) {
                // A whole number beyond 64 bits is still a number.
            }
        }
        double value = Double.parseDouble(written);
        if (Double.isInfinite(value)) {
            throw wrong("a number beyond all bounds");
        }
        return value;
    }
}
