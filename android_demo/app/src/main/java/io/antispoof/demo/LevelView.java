package io.antispoof.demo;

import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Paint;
import android.util.AttributeSet;
import android.view.View;

/** A bar from -60 to 0 dB of full scale. */
public final class LevelView extends View {
    private static final double QUIETEST_DB = -60;
    private static final int SPOKEN_STEP_DB = 10; // how coarsely screen readers are told

    private final Paint track = new Paint(Paint.ANTI_ALIAS_FLAG);
    private final Paint bar = new Paint(Paint.ANTI_ALIAS_FLAG);
    private double share;

    public LevelView(Context context, AttributeSet attributes) {
        super(context, attributes);
        track.setColor(context.getColor(R.color.outline));
        bar.setColor(context.getColor(R.color.accent));
        setLevel(Double.NaN);
    }

    /** Shows a level in dB; NaN shows none. */
    void setLevel(double decibels) {
        boolean none = Double.isNaN(decibels);
        share = none ? 0 : Math.max(0, Math.min(1, 1 - decibels / QUIETEST_DB));
        int spoken = none ? (int) QUIETEST_DB : (int) Math.round(decibels / SPOKEN_STEP_DB) * SPOKEN_STEP_DB;
        setContentDescription(getResources().getString(R.string.level_description, spoken));
        invalidate();
    }

    @Override
    protected void onDraw(Canvas canvas) {
        float width = getWidth();
        float height = getHeight();
        float radius = height / 2;
        canvas.drawRoundRect(0, 0, width, height, radius, radius, track);
        if (share > 0) {
            float end = (float) Math.max(height, share * width);
            canvas.drawRoundRect(0, 0, end, height, radius, radius, bar);
        }
    }
}
