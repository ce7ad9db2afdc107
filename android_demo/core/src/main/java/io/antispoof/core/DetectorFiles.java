package io.antispoof.core;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;

/** A folder of files: the app's assets, or a directory. */
public interface DetectorFiles {
    /**
     * Opens a file by its plain name.
     *
     * @throws FileNotFoundException there is none
     */
    InputStream open(String name) throws IOException;
}
