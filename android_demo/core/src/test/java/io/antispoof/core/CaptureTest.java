package io.antispoof.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.Test;

public class CaptureTest {
    private static final int CHUNK = 1_600;

    /** A microphone that plays what a test tells it to, by a clock that only it moves. */
    private static class Script implements AudioSource, Clock {
        final List<Integer> reads = new ArrayList<>();
        final List<String> calls = new ArrayList<>();
        short value = 100;
        CaptureException refusal;
        RuntimeException thrownByRead;
        RuntimeException thrownByStop;
        Runnable afterLast = () -> {};
        private int next;
        private long nanos;

        Script(Integer... reads) {
            this.reads.addAll(Arrays.asList(reads));
        }

        @Override
        public int sampleRate() {
            return 16_000;
        }

        @Override
        public int bufferFrames() {
            return 32_000;
        }

        @Override
        public void start() throws CaptureException {
            calls.add("start");
            if (refusal != null) {
                throw refusal;
            }
        }

        @Override
        public int read(short[] pcm, int frames) {
            if (next == reads.size()) {
                if (thrownByRead != null) {
                    throw thrownByRead;
                }
                afterLast.run();
                return GONE;
            }
            int count = reads.get(next++);
            Arrays.fill(pcm, value);
            nanos += Math.max(0, count) * 62_500L;
            return count;
        }

        @Override
        public void stop() {
            calls.add("stop");
            if (thrownByStop != null) {
                throw thrownByStop;
            }
        }

        @Override
        public void release() {
            calls.add("release");
        }

        @Override
        public long nanos() {
            return nanos;
        }

        @Override
        public void pause(long millis) {
            nanos += millis * 1_000_000;
        }
    }

    private static class Log implements Capture.Listener {
        final List<String> lines = new ArrayList<>();
        int heard;
        RuntimeException thrown;

        @Override
        public void heard(short[] pcm, int frames, long waiting) {
            heard += frames;
            if (thrown != null) {
                throw thrown;
            }
        }

        @Override
        public void lost(long frames) {
            lines.add("lost");
        }

        @Override
        public void muted(boolean muted) {
            lines.add(muted ? "muted" : "audible");
        }

        @Override
        public void ended(Capture.End end, String why) {
            lines.add(end + ": " + why);
        }
    }

    private final Log log = new Log();

    private void play(Script script) {
        new Capture(script, log, script, CHUNK).run();
        assertEquals("released once, last", script.calls.size() - 1, script.calls.indexOf("release"));
        assertTrue("stopped before", script.calls.contains("stop"));
    }

    private String last() {
        return log.lines.get(log.lines.size() - 1);
    }

    @Test
    public void shortReadsAreHeardAsTheyAre() {
        play(new Script(CHUNK, 1, 0, 37, CHUNK - 1));
        assertEquals(2 * CHUNK + 37, log.heard);
    }

    @Test
    public void everyErrorEndsInASentenceAndARelease() {
        for (int code : new int[] {AudioSource.GONE, AudioSource.DENIED, AudioSource.BROKEN, -38, CHUNK + 1}) {
            log.lines.clear();
            play(new Script(CHUNK, code));
            assertEquals(1, log.lines.size());
            assertTrue(last(), last().startsWith(code == AudioSource.DENIED ? "DENIED: the" : "FAILED: the"));
        }
    }

    @Test
    public void aSourceThatCannotStartIsReleasedToo() {
        Script script = new Script(CHUNK);
        script.refusal = new CaptureException("the microphone is taken; close the other app");
        play(script);
        assertEquals("FAILED: the microphone is taken; close the other app", last());
        assertEquals(0, log.heard);
    }

    @Test
    public void aRevokedPermissionIsNoFailureOfTheMicrophone() {
        Script script = new Script(CHUNK);
        script.thrownByRead = new SecurityException("revoked");
        play(script);
        assertTrue(last(), last().startsWith("DENIED: the microphone permission"));
    }

    @Test
    public void nothingForASecondIsAFailure() {
        Integer[] nothing = new Integer[200];
        Arrays.fill(nothing, 0);
        play(new Script(nothing));
        assertTrue(last(), last().contains("delivers nothing"));
    }

    @Test
    public void aModelThatFailsEndsTheRecordingInItsSentence() {
        log.thrown = new ScorerException("ONNX Runtime cannot run the model");
        play(new Script(CHUNK));
        assertEquals("FAILED: ONNX Runtime cannot run the model", last());
    }

    @Test
    public void aBugIsNotHiddenAndStillReleases() {
        Script script = new Script(CHUNK);
        log.thrown = new IllegalStateException("a bug");
        try {
            play(script);
            throw new AssertionError("the bug was hidden");
        } catch (IllegalStateException expected) {
            assertTrue(script.calls.contains("release"));
            assertEquals(1, log.lines.size());
        }
    }

    @Test
    public void aDeviceThatRefusesToStopIsReleasedAllTheSame() {
        Script script = new Script(CHUNK);
        script.thrownByStop = new IllegalStateException("not initialized");
        play(script);
    }

    @Test
    public void stoppingWhileReadingEndsQuietly() {
        Script script = new Script(CHUNK);
        Capture[] capture = new Capture[1];
        script.afterLast = () -> capture[0].stop();
        capture[0] = new Capture(script, log, script, CHUNK);
        capture[0].run();
        assertEquals(Arrays.asList("STOPPED: "), log.lines);
        int calls = script.calls.size();
        capture[0].stop();
        assertEquals("a released source is left alone", calls, script.calls.size());
    }

    @Test
    public void stoppingBeforeTheStartNeverStarts() {
        Script script = new Script(CHUNK);
        Capture capture = new Capture(script, log, script, CHUNK);
        capture.stop();
        capture.run();
        assertFalse(script.calls.contains("start"));
        assertEquals(Arrays.asList("STOPPED: "), log.lines);
    }

    @Test(expected = IllegalStateException.class)
    public void oneObjectRunsOnce() {
        Capture capture = new Capture(new Script(), log, Clock.SYSTEM, CHUNK);
        capture.run();
        capture.run();
    }

    @Test
    public void twoSecondsOfZerosAreMutedAndOneSoundIsNot() {
        Script script = new Script();
        for (int i = 0; i < 25; i++) {
            script.reads.add(CHUNK);
        }
        script.value = 0;
        script.afterLast = () -> {};
        Log waking =
                new Log() {
                    @Override
                    public void muted(boolean muted) {
                        super.muted(muted);
                        script.value = 1;
                    }
                };
        new Capture(script, waking, script, CHUNK).run();
        assertEquals(Arrays.asList("muted", "audible"), waking.lines.subList(0, 2));
    }

    @Test
    public void aStopFromAnotherThreadEndsAReadThatWaits() throws Exception {
        CountDownLatch reading = new CountDownLatch(1);
        CountDownLatch stopped = new CountDownLatch(1);
        Script script =
                new Script() {
                    @Override
                    public int read(short[] pcm, int frames) {
                        reading.countDown();
                        try {
                            return stopped.await(10, TimeUnit.SECONDS) ? BROKEN : 1;
                        } catch (InterruptedException e) {
                            throw new AssertionError(e);
                        }
                    }

                    @Override
                    public void stop() {
                        stopped.countDown();
                    }
                };
        Capture capture = new Capture(script, log, Clock.SYSTEM, CHUNK);
        Thread thread = new Thread(capture);
        thread.start();
        assertTrue(reading.await(10, TimeUnit.SECONDS));
        capture.stop();
        thread.join(10_000);
        assertFalse(thread.isAlive());
        assertEquals(Arrays.asList("STOPPED: "), log.lines);
    }

    @Test
    public void anOverrunIsToldAsAGap() {
        Script script =
                new Script() {
                    @Override
                    public int read(short[] pcm, int frames) {
                        if (calls.size() == 1) {
                            calls.add("stall");
                        } else if (calls.contains("stall") && !calls.contains("stalled")) {
                            calls.add("stalled");
                            pause(10_000);
                            return frames;
                        }
                        return super.read(pcm, frames);
                    }
                };
        for (int i = 0; i < 40; i++) {
            script.reads.add(CHUNK);
        }
        new Capture(script, log, script, CHUNK).run();
        assertEquals("lost", log.lines.get(0));
    }
}
