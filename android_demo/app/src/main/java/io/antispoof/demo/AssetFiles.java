package io.antispoof.demo;

import android.content.res.AssetManager;
import io.antispoof.core.DetectorFiles;
import java.io.IOException;
import java.io.InputStream;

/** The detector among the app's assets. */
final class AssetFiles implements DetectorFiles {
    private static final String FOLDER = "detector/";

    private final AssetManager assets;

    AssetFiles(AssetManager assets) {
        this.assets = assets;
    }

    @Override
    public InputStream open(String name) throws IOException {
        return assets.open(FOLDER + name, AssetManager.ACCESS_STREAMING);
    }
}
