package io.antispoof.core;

import java.util.Map;

/** Writes Map, Iterable, String, Number, Boolean and null as JSON, which has no NaN and no infinity. */
final class JsonText {
    private final StringBuilder out = new StringBuilder();

    private JsonText() {}

    /** Returns the JSON of a value. */
    static String of(Object value) {
        JsonText text = new JsonText();
        text.value(value);
        return text.out.append('\n').toString();
    }

    private void value(Object value) {
        if (value instanceof Map) {
            object((Map<?, ?>) value);
        } else if (value instanceof Iterable) {
            array((Iterable<?>) value);
        } else if (value instanceof CharSequence) {
            string((CharSequence) value);
        } else if (value == null || value instanceof Boolean || isFinite(value)) {
            out.append(value);
        } else {
            throw new IllegalArgumentException("JSON cannot hold " + value);
        }
    }

    private static boolean isFinite(Object value) {
        double number = value instanceof Number ? ((Number) value).doubleValue() : Double.NaN;
        return !Double.isNaN(number) && !Double.isInfinite(number);
    }

    private void object(Map<?, ?> members) {
        String before = "{";
        for (Map.Entry<?, ?> member : members.entrySet()) {
            out.append(before);
            string((String) member.getKey());
            out.append(": ");
            value(member.getValue());
            before = ", ";
        }
        out.append(members.isEmpty() ? "{}" : "}");
    }

    private void array(Iterable<?> items) {
        String before = "";
        out.append('[');
        for (Object item : items) {
            out.append(before);
            value(item);
            before = ", ";
        }
        out.append(']');
    }

    private void string(CharSequence s) {
        out.append('"');
        for (int i = 0; i < s.length(); i++) {
            char c = s.charAt(i);
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ' || c > '~') {
                out.append("\\u");
                for (int shift = 12; shift >= 0; shift -= 4) {
                    out.append(Character.forDigit(c >> shift & 15, 16));
                }
            } else {
                out.append(c);
            }
        }
        out.append('"');
    }
}
