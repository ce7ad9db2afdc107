package io.antispoof.demo;

import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Paint;
import android.graphics.Path;
import android.util.AttributeSet;
import android.view.View;
import io.antispoof.core.Reading;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;

/** The scores of the last minute as a line, newest on the right, with the threshold across. */
public final class HistoryView extends View {
    private static final double SECONDS = 60;
    private static final double GAP_SECONDS = 2; // no line is drawn over a longer pause

    private final Paint line = new Paint(Paint.ANTI_ALIAS_FLAG);
    private final Paint rule = new Paint(Paint.ANTI_ALIAS_FLAG);
    private final Path path = new Path();
    private final float density;
    private List<Reading> readings = new ArrayList<>();
    private double threshold = Double.NaN;
    private double least;
    private double most;

    public HistoryView(Context context, AttributeSet attributes) {
        super(context, attributes);
        density = getResources().getDisplayMetrics().density;
        line.setColor(context.getColor(R.color.accent));
        line.setStyle(Paint.Style.STROKE);
        line.setStrokeWidth(2.5f * density);
        line.setStrokeCap(Paint.Cap.ROUND);
        line.setStrokeJoin(Paint.Join.ROUND);
        rule.setColor(context.getColor(R.color.outline));
        rule.setStrokeWidth(density);
    }

    /** Shows readings; a threshold of NaN shows none. */
    void show(Collection<Reading> shown, double scoreThreshold) {
        readings = new ArrayList<>(shown);
        threshold = scoreThreshold;
        least = Double.isNaN(threshold) ? Double.POSITIVE_INFINITY : threshold - 1;
        most = Double.isNaN(threshold) ? Double.NEGATIVE_INFINITY : threshold + 1;
        for (Reading reading : readings) {
            least = Math.min(least, reading.score);
            most = Math.max(most, reading.score);
        }
        setContentDescription(describe());
        invalidate();
    }

    private String describe() {
        if (readings.isEmpty()) {
            return getResources().getString(R.string.history_empty);
        }
        double lowest = Double.POSITIVE_INFINITY;
        double highest = Double.NEGATIVE_INFINITY;
        for (Reading reading : readings) {
            lowest = Math.min(lowest, reading.score);
            highest = Math.max(highest, reading.score);
        }
        double last = readings.get(readings.size() - 1).score;
        return getResources().getString(R.string.history_description, readings.size(), lowest, highest, last);
    }

    @Override
    protected void onDraw(Canvas canvas) {
        float bottom = getHeight() - density;
        canvas.drawLine(0, bottom, getWidth(), bottom, rule);
        if (!Double.isNaN(threshold)) {
            float y = height(threshold);
            canvas.drawLine(0, y, getWidth(), y, rule);
        }
        if (readings.isEmpty()) {
            return;
        }
        path.rewind();
        double newest = readings.get(readings.size() - 1).seconds;
        Reading before = null;
        for (Reading reading : readings) {
            float x = (float) (getWidth() * (1 - (newest - reading.seconds) / SECONDS)) - 2 * density;
            if (before == null || reading.seconds - before.seconds > GAP_SECONDS) {
                path.moveTo(x - density, height(reading.score)); // a lone reading shows as a dot
            }
            path.lineTo(x, height(reading.score));
            before = reading;
        }
        canvas.drawPath(path, line);
    }

    private float height(double score) {
        double share = most > least ? (score - least) / (most - least) : 0.5;
        float margin = 4 * density;
        return (float) (margin + (1 - share) * (getHeight() - 2 * margin));
    }
}
