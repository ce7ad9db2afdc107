package io.antispoof.demo;

import android.content.Context;
import android.content.SharedPreferences;
import io.antispoof.core.AcceptedModels;

/** Keeps what was accepted in the app's preferences, which outlive its updates. */
final class KeptModels implements AcceptedModels {
    private static final String VERSION = "version/";

    private final SharedPreferences kept;

    KeptModels(Context context) {
        kept = context.getSharedPreferences("accepted-models", Context.MODE_PRIVATE);
    }

    @Override
    public long version(String model) {
        return kept.getLong(VERSION + model, -1);
    }

    @Override
    public void accept(String model, long version) {
        kept.edit().putLong(VERSION + model, version).apply();
    }
}
