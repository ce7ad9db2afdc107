package io.antispoof.core;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/** What a model file takes, gives and was made from: antispoof/manifest.py, as far as an app uses it. */
public final class Manifest {
    static final int SCHEMA = 1;
    static final int MAX_BYTES = 1 << 20;
    static final long MAX_MODEL_BYTES = 1L << 29;
    static final int MAX_VERSION = Integer.MAX_VALUE;

    /** Beyond any calibration: the million that the streaming core takes, less a threshold's margin. */
    private static final double MAX_LLR = 999_999;

    /** {@code llr = scale * score + offset}. */
    public static final class Calibration {
        public final double scale;
        public final double offset;

        Calibration(double scale, double offset) {
            this.scale = scale;
            this.offset = offset;
        }
    }

    /** Scores at or above {@code score} are taken for bona fide. */
    public static final class Threshold {
        public final String name;
        public final double score;

        Threshold(String name, double score) {
            this.name = name;
            this.score = score;
        }
    }

    public final String model;
    public final String format;
    public final String precision;
    public final String recipe;
    public final String licence;
    public final String inputName;
    public final String outputName;

    /** Samples of a window. */
    public final int samples;

    /** Null where none was fitted. */
    public final Calibration calibration;

    public final List<Threshold> thresholds;
    public final long modelVersion;

    final String fileName;
    final long fileBytes;
    final String fileSha256;
    final String goldenSha256;

    private Manifest(Fields f) throws Refusal {
        f.integer("schema", SCHEMA, SCHEMA);
        model = f.text("model");
        format = f.text("format");
        precision = f.text("precision");
        recipe = f.text("recipe");
        licence = f.text("licence");
        Fields input = f.object("input");
        inputName = input.text("name");
        samples = (int) input.integer("samples", 1, StreamConfig.MAX_WINDOW);
        checkInput(input);
        Fields output = f.object("output");
        outputName = output.text("name");
        checkOutput(output);
        calibration = f.has("calibration") ? calibration(f.object("calibration")) : null;
        thresholds = thresholds(f);
        checkDecisions(f);
        modelVersion = f.integer("model_version", 0, MAX_VERSION);
        Fields file = f.object("file");
        fileName = file.text("name");
        fileBytes = file.integer("bytes", 1, MAX_MODEL_BYTES);
        fileSha256 = file.sha256("sha256");
        goldenSha256 = f.sha256("golden_sha256");
    }

    /** Reads a manifest whose signature was verified before. */
    static Manifest parse(byte[] json, String file) throws Refusal {
        return new Manifest(Fields.parse(json, file));
    }

    private static void checkInput(Fields input) throws Refusal {
        input.integer("sample_rate", StreamConfig.RATE, StreamConfig.RATE);
        input.requireText("dtype", "float32");
        input.requireText("length_rule", "tile when shorter, head when longer");
        if (input.has("batch")) {
            input.integer("batch", 1, 1);
        }
    }

    private static void checkOutput(Fields output) throws Refusal {
        output.requireText("dtype", "float32");
        output.requireText("polarity", "higher is bona fide");
        if (!output.list("labels").equals(Arrays.asList("spoof", "bonafide"))) {
            throw output.wrong("labels", "are not spoof and bonafide");
        }
    }

    private static Calibration calibration(Fields f) throws Refusal {
        double scale = f.number("scale");
        if (scale <= 0) {
            throw f.wrong("scale", "is not positive");
        }
        return new Calibration(scale, f.number("offset"));
    }

    /** Refuses what nothing can be decided by, as antispoof/manifest_reader.py does. */
    private void checkDecisions(Fields f) throws Refusal {
        double scale = calibration == null ? 1 : calibration.scale;
        double offset = calibration == null ? 0 : calibration.offset;
        boolean moderate = isModerate(scale) && isModerate(offset);
        for (Threshold point : thresholds) {
            moderate &= isModerate(scale * point.score + offset);
        }
        if (!moderate) {
            throw f.wrong("calibration or a threshold", "is beyond all bounds");
        }
    }

    private static boolean isModerate(double ratio) {
        return Math.abs(ratio) <= MAX_LLR;
    }

    private static List<Threshold> thresholds(Fields f) throws Refusal {
        List<Threshold> rows = new ArrayList<>();
        for (int i = 0; i < f.list("thresholds").size(); i++) {
            Fields row = f.item("thresholds", i);
            rows.add(new Threshold(row.text("name"), row.number("score")));
        }
        return Collections.unmodifiableList(rows);
    }
}
