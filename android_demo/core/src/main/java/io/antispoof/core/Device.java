package io.antispoof.core;

import java.util.Map;

/** What a benchmark records of the machine that it runs on; the names are those of benchmarks/devices/android.py. */
public interface Device {
    /** What it is. */
    Map<String, Object> facts();

    /** What changes from one minute to the next. */
    Map<String, Object> state();

    /** 0 where it is cool, up to 6 where it is about to switch off; null where unknown. */
    Integer thermalStatus();

    /** The most memory that this process ever held, in KiB; 0 where unknown. */
    long peakRssKib();
}
