package io.antispoof.demo;

import android.Manifest;
import android.app.Activity;
import android.content.Intent;
import android.content.pm.PackageManager;
import android.net.Uri;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.provider.Settings;
import android.view.View;
import android.view.WindowManager;
import io.antispoof.core.Capture;
import io.antispoof.core.CaptureException;
import io.antispoof.core.Reading;
import io.antispoof.core.Refusal;
import io.antispoof.core.ScorerException;

/**
 * The one screen: listens while it is in front, and shows what the detector makes of it.
 *
 * <p>The microphone is held between onResume and onPause alone. A turned or resized screen is laid out anew by the
 * same activity, which listens on; through other changes, such as of the language, the opened detector lives on,
 * and a recording begins anew.
 */
@SuppressWarnings("deprecation") // onRetainNonConfigurationInstance: its successor is a library
public final class MainActivity extends Activity implements Listening.Listener, View.OnClickListener {
    private static final int ASK = 1;
    private static final String WANTED = "wanted";
    private static final String ASKING = "asking";

    /** What outlives the activity where a change of the phone's configuration makes a new one. */
    private static final class Kept {
        final Screen screen = new Screen();
        OpenedDetector opened;
        MainActivity shownBy;
        boolean stuck; // a run of the model never ended: it is neither used again nor closed
    }

    private Kept kept;
    private ScreenViews views;
    private Listening listening;
    private boolean wanted; // the user pressed "listen" and did not press "stop"
    private boolean asking; // the question for the permission is open; it outlives such a change
    private boolean inFront;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.main);
        views = new ScreenViews(this);
        findViewById(R.id.action).setOnClickListener(this);
        wanted = state != null && state.getBoolean(WANTED);
        asking = state != null && state.getBoolean(ASKING);
        kept = (Kept) getLastNonConfigurationInstance();
        if (kept == null) {
            kept = new Kept();
            load(kept);
        }
        kept.shownBy = this;
        show();
    }

    /** Verifies and opens the detector, away from the main thread. */
    private void load(final Kept target) {
        final android.content.Context app = getApplicationContext();
        final Handler main = new Handler(Looper.getMainLooper());
        new Thread("loading") {
            @Override
            public void run() {
                OpenedDetector opened = null;
                String refusal = null;
                try {
                    opened = OpenedDetector.open(app);
                } catch (Refusal | ScorerException refused) {
                    refusal = refused.getMessage();
                }
                main.post(new Loaded(target, opened, refusal));
            }
        }.start();
    }

    /** Brings the outcome to whichever activity shows it by then. */
    private static final class Loaded implements Runnable {
        private final Kept target;
        private final OpenedDetector opened;
        private final String refusal;

        Loaded(Kept target, OpenedDetector opened, String refusal) {
            this.target = target;
            this.opened = opened;
            this.refusal = refusal;
        }

        @Override
        public void run() {
            target.opened = opened;
            target.screen.phase = opened == null ? Screen.Phase.REFUSED : Screen.Phase.READY;
            target.screen.problem = refusal;
            if (target.shownBy != null) {
                target.shownBy.listenIfWanted();
                target.shownBy.show();
            } else if (opened != null) {
                opened.scorer.close();
            }
        }
    }

    @Override
    protected void onResume() {
        super.onResume();
        inFront = true;
        listenIfWanted();
        show();
    }

    @Override
    protected void onPause() {
        inFront = false;
        stopListening();
        super.onPause();
    }

    @Override
    protected void onStop() {
        stopListening(); // onPause did; this is for phones that skip it
        super.onStop();
    }

    @Override
    protected void onSaveInstanceState(Bundle state) {
        super.onSaveInstanceState(state);
        state.putBoolean(WANTED, wanted);
        state.putBoolean(ASKING, asking);
    }

    @Override
    public Object onRetainNonConfigurationInstance() {
        return kept;
    }

    @Override
    protected void onDestroy() {
        kept.shownBy = null;
        if (!isChangingConfigurations() && kept.opened != null && !kept.stuck) {
            kept.opened.scorer.close();
            kept.opened = null;
        }
        super.onDestroy();
    }

    @Override
    public void onClick(View button) {
        if (kept.screen.permissionMissing && !shouldAskAgain()) {
            Uri app = Uri.fromParts("package", getPackageName(), null);
            startActivity(new Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, app));
            return;
        }
        wanted = listening == null;
        asking = false;
        if (wanted) {
            kept.screen.permissionMissing = false;
            listenIfWanted();
        } else {
            stopListening();
        }
        show();
    }

    /** Android asks no more once the user refused for good. */
    private boolean shouldAskAgain() {
        return shouldShowRequestPermissionRationale(Manifest.permission.RECORD_AUDIO) || mayListen();
    }

    private boolean mayListen() {
        return checkSelfPermission(Manifest.permission.RECORD_AUDIO) == PackageManager.PERMISSION_GRANTED;
    }

    private void listenIfWanted() {
        if (mayListen()) {
            kept.screen.permissionMissing = false; // it may have been granted in the settings
        }
        if (!wanted || !inFront || asking || listening != null || kept.opened == null || kept.stuck) {
            return;
        }
        if (!mayListen()) {
            if (!kept.screen.permissionMissing) {
                asking = true;
                requestPermissions(new String[] {Manifest.permission.RECORD_AUDIO}, ASK);
            }
            return;
        }
        try {
            kept.screen.begin();
            listening = Listening.start(this, kept.opened, this);
            getWindow().addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        } catch (CaptureException | SecurityException failure) {
            wanted = false;
            kept.screen.end(failure.getMessage());
        }
    }

    @Override
    public void onRequestPermissionsResult(int code, String[] permissions, int[] results) {
        asking = false;
        boolean granted = results.length > 0 && results[0] == PackageManager.PERMISSION_GRANTED;
        // No results: the question was taken away unanswered. To ask again from here could go on for ever.
        kept.screen.permissionMissing = results.length > 0 && !granted;
        wanted = wanted && granted;
        listenIfWanted();
        show();
    }

    private void stopListening() {
        if (listening == null) {
            return;
        }
        kept.stuck = !listening.stop();
        listening = null;
        getWindow().clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        kept.screen.end(kept.stuck ? getString(R.string.stuck) : null);
    }

    @Override
    public void level(double decibels) {
        kept.screen.levelDb = decibels;
        views.showLevel(kept.screen);
    }

    @Override
    public void notEnough(double speechSeconds) {
        kept.screen.speechSeconds = speechSeconds;
        show();
    }

    @Override
    public void scored(Reading reading) {
        kept.screen.add(reading);
        show();
    }

    @Override
    public void muted(boolean muted) {
        kept.screen.muted = muted;
        show();
    }

    @Override
    public void ended(Capture.End end, String why) {
        stopListening();
        wanted = false;
        kept.screen.end(why.isEmpty() ? null : why);
        kept.screen.permissionMissing = end == Capture.End.DENIED;
        show();
    }

    private void show() {
        views.show(kept.screen, kept.opened, shouldAskAgain());
    }
}
