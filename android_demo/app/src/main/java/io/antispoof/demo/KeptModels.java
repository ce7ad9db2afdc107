package io.antispoof.demo;

import android.content.Context;
import android.content.SharedPreferences;
import io.antispoof.core.AcceptedModels;

/** Keeps what was accepted in the app's preferences, which outlive its updates. */
final class KeptModels implements AcceptedModels {
    private static final String VERSION = "version/";
    private static final String SHA256 = "sha256/";

    private final SharedPreferences kept;

    KeptModels(Context context) {
        kept = context.getSharedPreferences("accepted-models", Context.MODE_PRIVATE);
    }

    @Override
    public long version(String model) {
        return kept.getLong(VERSION + model, -1);
    }

    @Override
    public String sha256(String model) {
        return kept.getString(SHA256 + model, null);
    }

    @Override
    public void accept(String model, long version, String sha256) {
        kept.edit().putLong(VERSION + model, version).putString(SHA256 + model, sha256).apply();
    }
}
