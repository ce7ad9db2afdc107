package io.antispoof.demo;

import android.app.Activity;
import android.content.res.ColorStateList;
import android.content.res.Resources;
import android.text.format.DateUtils;
import android.view.View;
import android.widget.Button;
import android.widget.TextView;
import io.antispoof.core.Decision;
import io.antispoof.core.Manifest;
import io.antispoof.core.Reading;
import io.antispoof.core.Verdict;

/** Brings a {@link Screen} into the views of the layout. */
final class ScreenViews {
    private static final int RATE = 16_000;

    private final Activity activity;
    private final Resources resources;
    private final View card;
    private final TextView verdict;
    private final TextView about;
    private final TextView score;
    private final TextView latency;
    private final TextView model;
    private final TextView levelValue;
    private final LevelView level;
    private final HistoryView history;
    private final Button action;

    ScreenViews(Activity activity) {
        this.activity = activity;
        resources = activity.getResources();
        card = activity.findViewById(R.id.verdict_card);
        verdict = (TextView) activity.findViewById(R.id.verdict);
        about = (TextView) activity.findViewById(R.id.about);
        score = (TextView) activity.findViewById(R.id.score);
        latency = (TextView) activity.findViewById(R.id.latency);
        model = (TextView) activity.findViewById(R.id.model);
        levelValue = (TextView) activity.findViewById(R.id.level_value);
        level = (LevelView) activity.findViewById(R.id.level);
        history = (HistoryView) activity.findViewById(R.id.history);
        action = (Button) activity.findViewById(R.id.action);
    }

    void show(Screen screen, OpenedDetector opened, boolean canAskAgain) {
        showVerdict(screen);
        showNumbers(screen.last);
        showLevel(screen);
        history.show(screen.readings, opened == null ? Double.NaN : threshold(opened.detector.manifest));
        setText(model, opened == null ? "" : describe(opened));
        boolean toSettings = screen.permissionMissing && !canAskAgain;
        boolean listening = screen.phase == Screen.Phase.LISTENING;
        setText(action, text(toSettings ? R.string.settings : listening ? R.string.stop : R.string.listen));
        action.setEnabled(listening || screen.phase == Screen.Phase.READY);
    }

    void showLevel(Screen screen) {
        level.setLevel(screen.levelDb);
        boolean none = Double.isNaN(screen.levelDb);
        setText(levelValue, none ? text(R.string.none) : text(R.string.level_value, screen.levelDb));
    }

    private void showVerdict(Screen screen) {
        if (screen.phase == Screen.Phase.LOADING) {
            say(R.string.loading, "", null);
        } else if (screen.phase == Screen.Phase.REFUSED) {
            say(R.string.refused, screen.problem, Decision.SPOOF);
        } else if (screen.permissionMissing) {
            say(R.string.ready, text(R.string.permission_denied), null);
        } else if (screen.problem != null) {
            say(R.string.stopped_by_failure, screen.problem, null);
        } else if (screen.muted) {
            say(R.string.listening, text(R.string.muted), null);
        } else if (screen.last != null) {
            showReading(screen.last);
        } else if (screen.phase == Screen.Phase.READY) {
            say(R.string.ready, text(R.string.about_ready), null);
        } else if (screen.speechSeconds > 0) {
            say(R.string.not_enough, text(R.string.about_not_enough, screen.speechSeconds), null);
        } else {
            say(R.string.listening, text(R.string.about_ready), null);
        }
    }

    private void showReading(Reading reading) {
        if (reading.verdict == null) {
            say(R.string.score_only, text(R.string.about_score_only), null);
            return;
        }
        Decision decision = reading.verdict.decision;
        if (decision == Decision.UNDECIDED) {
            say(R.string.undecided, text(R.string.about_undecided), null);
            return;
        }
        String since = DateUtils.formatElapsedTime(reading.verdict.since / RATE);
        int title = decision == Decision.BONAFIDE ? R.string.genuine : R.string.synthetic;
        say(title, text(R.string.about_since, since), decision);
    }

    private void say(int title, String more, Decision tint) {
        int ground = R.color.neutral_tint;
        int ink = R.color.text;
        if (tint == Decision.BONAFIDE) {
            ground = R.color.genuine_tint;
            ink = R.color.genuine;
        } else if (tint == Decision.SPOOF) {
            ground = R.color.synthetic_tint;
            ink = R.color.synthetic;
        }
        card.setBackgroundTintList(ColorStateList.valueOf(activity.getColor(ground)));
        verdict.setTextColor(activity.getColor(ink));
        setText(verdict, text(title));
        setText(about, more);
    }

    private void showNumbers(Reading last) {
        if (last == null) {
            setText(score, text(R.string.none));
            setText(latency, text(R.string.none));
            return;
        }
        Verdict decided = last.verdict;
        setText(
                score,
                decided == null
                        ? text(R.string.score_value, last.score)
                        : text(R.string.ratio_value, last.score, decided.smoothed));
        setText(latency, text(R.string.latency_value, last.milliseconds));
    }

    private static double threshold(Manifest manifest) {
        return manifest.thresholds.isEmpty() ? Double.NaN : manifest.thresholds.get(0).score;
    }

    private String describe(OpenedDetector opened) {
        Manifest manifest = opened.detector.manifest;
        return text(
                R.string.model,
                opened.detector.file(),
                manifest.modelVersion,
                manifest.precision,
                text(R.string.golden_within, opened.goldenDifference),
                opened.runtime);
    }

    private String text(int id, Object... values) {
        return resources.getString(id, values);
    }

    /** Sets a text that differs, so that screen readers are not told the same again. */
    private static void setText(TextView view, String text) {
        if (!text.contentEquals(view.getText())) {
            view.setText(text);
        }
    }
}
