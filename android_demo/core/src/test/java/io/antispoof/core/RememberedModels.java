package io.antispoof.core;

import java.util.HashMap;
import java.util.Map;

/** What an app keeps in its preferences, kept for one test. */
final class RememberedModels implements AcceptedModels {
    final Map<String, Long> versions = new HashMap<>();

    @Override
    public long version(String model) {
        return versions.containsKey(model) ? versions.get(model) : -1;
    }

    @Override
    public void accept(String model, long version) {
        versions.put(model, version);
    }
}
