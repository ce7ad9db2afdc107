package io.antispoof.demo;

import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.os.BatteryManager;
import android.os.Build;
import android.os.PowerManager;
import io.antispoof.core.Device;
import java.io.BufferedReader;
import java.io.File;
import java.io.FileReader;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;

/** This phone, as far as an app may know it; what it may not is null. */
final class AndroidDevice implements Device {
    private static final String CPU = "/sys/devices/system/cpu";
    private static final int ANDROID_10 = 29;
    private static final int ANDROID_12 = 31;

    private final Context context;

    AndroidDevice(Context context) {
        this.context = context;
    }

    @Override
    public Map<String, Object> facts() {
        Map<String, Object> facts = new LinkedHashMap<>();
        facts.put("manufacturer", Build.MANUFACTURER);
        facts.put("model", Build.MODEL);
        facts.put("chip", chip());
        facts.put("android", Build.VERSION.RELEASE);
        facts.put("sdk", String.valueOf(Build.VERSION.SDK_INT));
        facts.put("abi", Build.SUPPORTED_ABIS[0]);
        facts.put("cpu_features", cpuFeatures());
        facts.put("max_khz", maxFrequencies());
        return facts;
    }

    @Override
    public Map<String, Object> state() {
        Intent battery = context.registerReceiver(null, new IntentFilter(Intent.ACTION_BATTERY_CHANGED));
        Map<String, Object> state = new LinkedHashMap<>();
        int level = battery == null ? -1 : battery.getIntExtra(BatteryManager.EXTRA_LEVEL, -1);
        int tenths = battery == null ? 0 : battery.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, 0);
        state.put("battery_percent", level < 0 ? null : level);
        state.put("battery_celsius", tenths == 0 ? null : tenths / 10.0);
        state.put(
                "charging", battery == null ? null : battery.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0);
        state.put("thermal_status", thermalStatus());
        state.put("governors", governors());
        return state;
    }

    /** PowerManager.getCurrentThermalStatus came with Android 10; this is compiled against Android 6. */
    @Override
    public Integer thermalStatus() {
        if (Build.VERSION.SDK_INT < ANDROID_10) {
            return null;
        }
        try {
            Object power = context.getSystemService(Context.POWER_SERVICE);
            return (Integer) PowerManager.class.getMethod("getCurrentThermalStatus").invoke(power);
        } catch (ReflectiveOperationException unknown) {
            return null;
        }
    }

    @Override
    public long peakRssKib() {
        for (String line : lines("/proc/self/status")) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("[^0-9]", ""));
            }
        }
        return 0;
    }

    private static String chip() {
        if (Build.VERSION.SDK_INT < ANDROID_12) {
            return Build.HARDWARE;
        }
        try {
            return (String) Build.class.getField("SOC_MODEL").get(null);
        } catch (ReflectiveOperationException unknown) {
            return Build.HARDWARE;
        }
    }

    private static List<String> cpuFeatures() {
        for (String line : lines("/proc/cpuinfo")) {
            String lower = line.toLowerCase(Locale.ROOT);
            if (lower.startsWith("features") || lower.startsWith("flags")) {
                return Arrays.asList(line.substring(line.indexOf(':') + 1).trim().split("\\s+"));
            }
        }
        return new ArrayList<>();
    }

    private static Map<String, Object> maxFrequencies() {
        Map<String, Object> frequencies = new TreeMap<>();
        for (int core = 0; new File(CPU + "/cpu" + core).isDirectory(); core++) {
            List<String> found = lines(CPU + "/cpu" + core + "/cpufreq/cpuinfo_max_freq");
            if (!found.isEmpty() && found.get(0).matches("[0-9]{1,18}")) {
                frequencies.put(String.valueOf(core), Long.valueOf(found.get(0)));
            }
        }
        return frequencies;
    }

    private static List<String> governors() {
        List<String> governors = new ArrayList<>();
        for (int core = 0; new File(CPU + "/cpu" + core).isDirectory(); core++) {
            for (String governor : lines(CPU + "/cpu" + core + "/cpufreq/scaling_governor")) {
                if (!governors.contains(governor)) {
                    governors.add(governor);
                }
            }
        }
        return governors;
    }

    private static List<String> lines(String path) {
        List<String> lines = new ArrayList<>();
        try (BufferedReader reader = new BufferedReader(new FileReader(path))) {
            for (String line = reader.readLine(); line != null; line = reader.readLine()) {
                lines.add(line);
            }
        } catch (IOException hidden) {
            lines.clear(); // many phones hide it from apps
        }
        return lines;
    }
}
