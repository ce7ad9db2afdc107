package io.antispoof.core;

import java.util.List;
import java.util.Map;

/** The members of a JSON object that nobody vouches for, read one by one; an error names file and field. */
final class Fields {
    private final Map<?, ?> members;
    private final String where;

    private Fields(Map<?, ?> members, String where) {
        this.members = members;
        this.where = where;
    }

    /** Reads a file's bytes. */
    static Fields parse(byte[] json, String file) throws Refusal {
        Object value;
        try {
            value = Json.parse(json);
        } catch (Json.Malformed e) {
            throw new Refusal(file + " is not JSON (" + e.getMessage() + "); embed the detector again");
        }
        return of(value, file + ": ");
    }

    private static Fields of(Object value, String where) throws Refusal {
        if (!(value instanceof Map)) {
            throw new Refusal(where + "not an object; embed the detector again");
        }
        return new Fields((Map<?, ?>) value, where);
    }

    /** That a field says what cannot be. */
    Refusal wrong(String name, String problem) {
        return new Refusal(where + name + " " + problem + "; embed the detector again");
    }

    boolean has(String name) {
        return members.get(name) != null;
    }

    String text(String name) throws Refusal {
        Object value = members.get(name);
        if (!(value instanceof String)) {
            throw wrong(name, "is not a string");
        }
        return (String) value;
    }

    /** A string that must be this one. */
    void requireText(String name, String wanted) throws Refusal {
        String found = text(name);
        if (!found.equals(wanted)) {
            throw wrong(name, "is not '" + wanted + "'");
        }
    }

    /** 64 digits of a sha256. */
    String sha256(String name) throws Refusal {
        String value = text(name);
        if (!value.matches("[0-9a-f]{64}")) {
            throw wrong(name, "is not a sha256");
        }
        return value;
    }

    long integer(String name, long least, long most) throws Refusal {
        Object value = members.get(name);
        if (!(value instanceof Long)) {
            throw wrong(name, "is not an integer");
        }
        long number = (Long) value;
        if (number < least || number > most) {
            throw wrong(name, "is not within " + least + " and " + most);
        }
        return number;
    }

    double number(String name) throws Refusal {
        return toNumber(name, members.get(name));
    }

    double[] numbers(String name) throws Refusal {
        List<?> items = list(name);
        double[] numbers = new double[items.size()];
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = toNumber(name, items.get(i));
        }
        return numbers;
    }

    private double toNumber(String name, Object value) throws Refusal {
        if (!(value instanceof Number)) {
            throw wrong(name, "is not a number");
        }
        return ((Number) value).doubleValue();
    }

    List<?> list(String name) throws Refusal {
        Object value = members.get(name);
        if (!(value instanceof List)) {
            throw wrong(name, "is not a list");
        }
        return (List<?>) value;
    }

    Fields object(String name) throws Refusal {
        return of(members.get(name), where + name + ": ");
    }

    /** An object out of a list of this object. */
    Fields item(String name, int index) throws Refusal {
        return of(list(name).get(index), where + name + ": ");
    }
}
