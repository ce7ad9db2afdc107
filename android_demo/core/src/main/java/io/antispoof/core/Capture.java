package io.antispoof.core;

/**
 * Reads a source until it is told to stop or the source fails, and always gives it back.
 *
 * <p>One object for one recording: {@link #run} on a thread of its own, {@link #stop} from any. Whatever
 * happens, the source is stopped and released and the listener hears {@link Listener#ended} once, last.
 */
public final class Capture implements Runnable {
    /** What is told of a recording, on the thread that runs it. */
    public interface Listener {
        /** The first {@code frames} samples of {@code pcm}, which is used again; so many more wait already. */
        void heard(short[] pcm, int frames, long waiting);

        /** So many frames were lost behind those heard. */
        void lost(long frames);

        /** The samples are nothing but zeros, as where Android mutes an app; or they no longer are. */
        void muted(boolean muted);

        /** It is over. */
        void ended(End end, String why);
    }

    /** How a recording ended. */
    public enum End {
        /** By {@link Capture#stop}. */
        STOPPED,
        /** The permission was never there, or was taken back. */
        DENIED,
        /** By a failure that trying again may cure. */
        FAILED
    }

    private static final long EMPTY_PAUSE_MILLIS = 10;
    private static final int EMPTY_READS = 100;
    private static final double MUTED_SECONDS = 2;

    private final AudioSource source;
    private final Listener listener;
    private final Clock clock;
    private final short[] pcm;
    private final Object device = new Object();
    private volatile boolean stopping;
    private boolean used;
    private boolean released;
    private End end = End.FAILED;
    private String why = "";
    private long zeros;

    /** Takes charge of a source, which it will release; reads {@code chunkFrames} at a time. */
    public Capture(AudioSource source, Listener listener, Clock clock, int chunkFrames) {
        this.source = source;
        this.listener = listener;
        this.clock = clock;
        this.pcm = new short[chunkFrames];
    }

    /** Asks for the end; returns at once. Harmless before the start and after the end. */
    public void stop() {
        stopping = true;
        synchronized (device) {
            if (!released) {
                stopSource();
            }
        }
    }

    @Override
    public void run() {
        synchronized (device) {
            if (used) {
                throw new IllegalStateException("a capture runs once");
            }
            used = true;
        }
        try {
            if (start()) {
                readAll();
            }
        } catch (CaptureException | ScorerException failure) {
            finish(End.FAILED, failure.getMessage());
        } catch (SecurityException denied) {
            finish(End.DENIED, "the microphone permission was taken back; grant it to listen");
        } finally {
            release();
            listener.ended(end, why);
        }
    }

    /** Starts the source unless a stop came first. */
    private boolean start() throws CaptureException {
        synchronized (device) {
            if (stopping) {
                finish(End.STOPPED, "");
                return false;
            }
            source.start();
            return true;
        }
    }

    private void readAll() {
        OverrunWatch watch = new OverrunWatch(source.sampleRate(), source.bufferFrames());
        int empty = 0;
        while (!stopping) {
            int frames = source.read(pcm, pcm.length);
            if (stopping) {
                break; // what a read returns while it is being stopped means nothing
            }
            if (frames < 0 || frames > pcm.length) {
                fail(frames);
                return;
            }
            if (frames == 0) {
                if (++empty == EMPTY_READS) {
                    finish(End.FAILED, "the microphone delivers nothing; another app may hold it");
                    return;
                }
                clock.pause(EMPTY_PAUSE_MILLIS);
                continue;
            }
            empty = 0;
            long lost = watch.afterRead(frames, clock.nanos());
            tell(frames, watch.waiting(), lost);
        }
        finish(End.STOPPED, "");
    }

    private void tell(int frames, long waiting, long lost) {
        noteZeros(frames);
        listener.heard(pcm, frames, waiting);
        if (lost > 0) {
            listener.lost(lost);
        }
    }

    private void noteZeros(int frames) {
        boolean all = true;
        for (int i = 0; i < frames && all; i++) {
            all = pcm[i] == 0;
        }
        long enough = (long) (MUTED_SECONDS * source.sampleRate());
        boolean before = zeros >= enough;
        zeros = all ? zeros + frames : 0;
        boolean now = zeros >= enough;
        if (now != before) {
            listener.muted(now);
        }
    }

    private void fail(int code) {
        if (code == AudioSource.DENIED) {
            finish(End.DENIED, "the microphone permission was taken back; grant it to listen");
        } else if (code == AudioSource.GONE) {
            finish(End.FAILED, "the microphone went away; start again");
        } else {
            finish(End.FAILED, "the microphone failed (code " + code + "); start again");
        }
    }

    private void finish(End how, String reason) {
        end = how;
        why = reason;
    }

    private void release() {
        synchronized (device) {
            stopSource();
            released = true;
            try {
                source.release();
            } catch (RuntimeException alreadyGone) {
                // A device that is gone may refuse; there is nothing left to give back.
            }
        }
    }

    private void stopSource() {
        try {
            source.stop();
        } catch (RuntimeException alreadyStopped) {
            // As above: it did not run, or is gone.
        }
    }
}
