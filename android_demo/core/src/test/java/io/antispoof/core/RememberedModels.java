package io.antispoof.core;

import java.util.HashMap;
import java.util.Map;

/** What an app keeps in its preferences, kept for one test. */
final class RememberedModels implements AcceptedModels {
    final Map<String, Long> versions = new HashMap<>();
    private final Map<String, String> hashes = new HashMap<>();

    @Override
    public long version(String model) {
        return versions.containsKey(model) ? versions.get(model) : -1;
    }

    @Override
    public String sha256(String model) {
        return hashes.get(model);
    }

    @Override
    public void accept(String model, long version, String sha256) {
        versions.put(model, version);
        hashes.put(model, sha256);
    }
}
