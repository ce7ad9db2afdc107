package io.antispoof.demo;

import android.app.Activity;
import android.content.Intent;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.util.Log;
import android.widget.TextView;
import io.antispoof.core.Benchmark;
import io.antispoof.core.Clock;
import io.antispoof.core.Refusal;
import io.antispoof.core.ScorerException;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/**
 * Times the embedded detector on this phone, without the microphone. Started by adb; README.md says how.
 *
 * <p>Extras: {@code runs} (50), {@code blocks} (12) and {@code threads} (1) are integers; {@code name}
 * ("benchmark") begins the names of the files that are written into the app's folder on the external storage:
 * NAME.on-device.json and NAME.answer.json, or NAME.error.txt with one line. The file that is looked for appears
 * whole, and last. Whoever leaves it ends it: behind other apps it would run on, on slower cores.
 */
public final class BenchmarkActivity extends Activity implements Benchmark.Progress {
    private static final String TAG = "antispoof";

    private final Handler main = new Handler(Looper.getMainLooper());
    private volatile boolean left;
    private volatile Benchmark running;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.benchmark);
        final Intent intent = getIntent();
        new Thread("benchmark") {
            @Override
            public void run() {
                measure(intent);
            }
        }.start();
    }

    @Override
    protected void onStop() {
        left = true;
        if (running != null) {
            running.stop();
        }
        super.onStop();
    }

    private void measure(Intent intent) {
        String asked = intent.getStringExtra("name");
        String name = asked != null && asked.matches("[A-Za-z0-9][A-Za-z0-9_-]{0,63}") ? asked : "benchmark";
        Benchmark.Plan plan =
                new Benchmark.Plan(
                        intent.getIntExtra("threads", 1),
                        intent.getIntExtra("runs", 50),
                        intent.getIntExtra("blocks", 12));
        try {
            clear(name);
            running =
                    new Benchmark(
                            OpenedDetector.verify(this),
                            plan,
                            new AndroidDevice(this),
                            Clock.SYSTEM,
                            "antispoof-demo " + version(),
                            this);
            if (left) {
                running.stop(); // before there was one to stop
            }
            Benchmark.Result result = running.run();
            write(name + ".answer.json", result.answer);
            File written = write(name + ".on-device.json", result.resultFile);
            says(result.summary);
            says(getString(R.string.benchmark_written, written.getPath()));
        } catch (Refusal | ScorerException refused) {
            fail(name, refused.getMessage());
        } catch (IOException full) {
            fail(name, "the result cannot be written: " + full.getMessage());
        }
    }

    private String version() {
        try {
            return getPackageManager().getPackageInfo(getPackageName(), 0).versionName;
        } catch (android.content.pm.PackageManager.NameNotFoundException impossible) {
            return "";
        }
    }

    private void fail(String name, String why) {
        says(why);
        try {
            write(name + ".error.txt", why + "\n");
        } catch (IOException e) {
            Log.e(TAG, "the failure cannot be written either", e);
        }
    }

    /** Removes what an earlier run left, so that nobody takes it for this one's. */
    private void clear(String name) throws IOException {
        for (String suffix : new String[] {".answer.json", ".on-device.json", ".error.txt"}) {
            File old = new File(folder(), name + suffix);
            if (old.exists() && !old.delete()) {
                throw new IOException(old.getName() + " of an earlier run cannot be removed");
            }
        }
    }

    private File folder() throws IOException {
        File folder = getExternalFilesDir(null);
        if (folder == null) {
            throw new IOException("there is no external storage");
        }
        return folder;
    }

    private File write(String name, String content) throws IOException {
        File target = new File(folder(), name);
        File unfinished = new File(folder(), "." + name);
        try (FileOutputStream out = new FileOutputStream(unfinished)) {
            out.write(content.getBytes(StandardCharsets.UTF_8));
        }
        if (!unfinished.renameTo(target)) {
            throw new IOException(name + " cannot be renamed");
        }
        return target;
    }

    @Override
    public void says(final String line) {
        Log.i(TAG, line);
        main.post(
                new Runnable() {
                    @Override
                    public void run() {
                        ((TextView) findViewById(R.id.log)).append("\n\n" + line);
                    }
                });
    }
}
