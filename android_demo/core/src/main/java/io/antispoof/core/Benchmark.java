package io.antispoof.core;

import java.text.SimpleDateFormat;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TimeZone;

/**
 * Times a detector on the device that it runs on, after it gave the golden scores there.
 *
 * <p>Two files come of it: a result of kind "on-device" as benchmarks/on_device.py writes it, and the answer of a
 * runner as benchmarks/devices/runs.py wants it.
 */
public final class Benchmark {
    /** What hears how far it is. */
    public interface Progress {
        void says(String line);
    }

    /** How much is run. */
    public static final class Plan {
        final int threads;
        final int runs;
        final int blocks;

        /** Takes what an intent asked for, brought into sane bounds. */
        public Plan(int threads, int runs, int blocks) {
            this.threads = Math.max(1, Math.min(threads, 16));
            this.runs = Math.max(1, Math.min(runs, 10_000));
            this.blocks = Math.max(1, Math.min(blocks, 100));
        }
    }

    /** What came of it, both as JSON, and in words. */
    public static final class Result {
        public final String resultFile;
        public final String answer;
        public final String summary;

        Result(String resultFile, String answer, String summary) {
            this.resultFile = resultFile;
            this.answer = answer;
            this.summary = summary;
        }
    }

    private static final long COOL_PAUSE_MILLIS = 5_000;
    private static final int COOL_PAUSES = 60;

    private final Detector detector;
    private final Plan plan;
    private final Device device;
    private final Clock clock;
    private final Progress progress;
    private final String runner;
    private double[] scores;
    private volatile boolean stopping;

    /** Prepares it; {@code runner} is the app's name and version. */
    public Benchmark(
            Detector detector, Plan plan, Device device, Clock clock, String runner, Progress progress) {
        this.detector = detector;
        this.plan = plan;
        this.device = device;
        this.clock = clock;
        this.runner = runner;
        this.progress = progress;
    }

    /**
     * Runs it, minutes long.
     *
     * @throws Refusal the golden scores are off, or it was stopped
     * @throws ScorerException the model cannot run
     */
    public Result run() throws Refusal {
        Map<String, Object> before = device.state();
        List<Timing.Block> blocks = new ArrayList<>();
        while (blocks.size() < plan.blocks && !Timing.isSteady(blocks)) {
            coolDown();
            blocks.add(block());
            progress.says("block " + blocks.size() + " of at most " + plan.blocks);
        }
        Map<String, Object> row = row(before);
        row.putAll(Timing.figures(blocks));
        row.put("peak_rss_mib", device.peakRssKib() / 1024.0);
        row.put("runner", runner);
        row.put("library", library());
        return new Result(JsonText.of(document(row)), JsonText.of(answer(blocks)), summary(row));
    }

    /** Asks a run for its end, from any thread: its times would not be those of an app in front. */
    public void stop() {
        stopping = true;
    }

    private void goOn() throws Refusal {
        if (stopping) {
            throw new Refusal("the benchmark was left before it was done; start it again, with the phone unlocked, and stay");
        }
    }

    /** Opens the model, checks its scores and times runs over the clips in turn. */
    private Timing.Block block() throws Refusal {
        Integer heat = device.thermalStatus();
        long start = clock.nanos();
        try (Scorer scorer = detector.open(plan.threads)) {
            double load = millisSince(start);
            double first = score(scorer);
            double[] times = new double[plan.runs];
            for (int i = 0; i < times.length; i++) {
                goOn();
                float[] clip = detector.golden.clip(i % detector.golden.clips);
                start = clock.nanos();
                scorer.score(clip);
                times[i] = millisSince(start);
            }
            return new Timing.Block(load, first, times, heat, device.thermalStatus());
        }
    }

    /** Scores every golden clip and returns how long the first took. */
    private double score(Scorer scorer) throws Refusal {
        double first = 0;
        scores = new double[detector.golden.clips];
        for (int i = 0; i < scores.length; i++) {
            float[] clip = detector.golden.clip(i);
            long start = clock.nanos();
            scores[i] = scorer.score(clip);
            first = i == 0 ? millisSince(start) : first;
        }
        detector.golden.compare(scores);
        return first;
    }

    private double millisSince(long start) {
        return (clock.nanos() - start) * 1e-6;
    }

    private void coolDown() throws Refusal {
        for (int i = 0; i < COOL_PAUSES; i++) {
            goOn();
            Integer heat = device.thermalStatus();
            if (heat == null || heat == 0) {
                return;
            }
            progress.says("the device is hot; waiting");
            clock.pause(COOL_PAUSE_MILLIS);
        }
    }

    private static String library() {
        return "onnxruntime " + OnnxScorer.version();
    }

    private Map<String, Object> row(Map<String, Object> before) throws Refusal {
        String file = detector.file();
        Map<String, Object> golden = new LinkedHashMap<>();
        golden.put("clips", detector.golden.clips);
        golden.put("max_difference", detector.golden.compare(scores));
        golden.put("tolerance", detector.golden.tolerance);
        Map<String, Object> row = new LinkedHashMap<>();
        row.put("label", file.substring(0, file.lastIndexOf('.')));
        row.put("file", file);
        row.put("bytes", detector.bytes());
        row.put("sha256", detector.sha256());
        row.put("model_version", detector.manifest.modelVersion);
        row.put("pushed", Collections.emptyMap());
        row.put("golden", golden);
        row.put("device", device.facts());
        row.put("before", before);
        row.put("after", device.state());
        row.put("threads", plan.threads);
        row.put("pinned_to", null);
        return row;
    }

    private Map<String, Object> document(Map<String, Object> row) {
        SimpleDateFormat date = new SimpleDateFormat("yyyy-MM-dd'T'HH:mm:ss'+00:00'", Locale.ROOT);
        date.setTimeZone(TimeZone.getTimeZone("UTC"));
        Map<String, Object> protocol = new LinkedHashMap<>();
        protocol.put("runs", plan.runs);
        protocol.put("blocks", plan.blocks);
        protocol.put("cores", "the app's");
        Map<String, Object> conditions = new LinkedHashMap<>();
        conditions.put("date", date.format(new Date()));
        conditions.put("packages", Collections.singletonMap("app", runner));
        conditions.put("protocol", protocol);
        Map<String, Object> document = new LinkedHashMap<>();
        document.put("schema", 1);
        document.put("kind", "on-device");
        document.put("conditions", conditions);
        document.put("rows", Collections.singletonList(row));
        return document;
    }

    /** The last block, as a runner that was called once would tell it. */
    private Map<String, Object> answer(List<Timing.Block> blocks) {
        Timing.Block last = blocks.get(blocks.size() - 1);
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("runner", runner);
        answer.put("library", library());
        answer.put("scores", boxed(scores));
        answer.put("load_ms", last.loadMs);
        answer.put("first_ms", last.firstMs);
        answer.put("times_ms", boxed(last.timesMs));
        answer.put("peak_rss_kib", device.peakRssKib());
        return answer;
    }

    private static List<Object> boxed(double[] values) {
        Object[] objects = new Object[values.length];
        for (int i = 0; i < values.length; i++) {
            objects[i] = values[i];
        }
        return Arrays.asList(objects);
    }

    private static String summary(Map<String, Object> row) {
        Map<?, ?> ms = (Map<?, ?>) row.get("ms");
        Map<?, ?> golden = (Map<?, ?>) row.get("golden");
        return String.format(
                Locale.ROOT,
                "%s: p50 %.1f ms, p90 %.1f ms, least %.1f ms (%d runs, %s); load %.1f ms, first run %.1f ms; "
                        + "golden scores within %.1e",
                row.get("file"),
                ms.get("p50"),
                ms.get("p90"),
                ms.get("least"),
                ms.get("runs"),
                (Boolean) row.get("steady") ? "steady" : "never steady",
                row.get("load_ms"),
                row.get("first_run_ms"),
                golden.get("max_difference"));
    }
}
