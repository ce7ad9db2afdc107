package io.antispoof.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.Test;

public class LiveDetectorTest {
    private static final int RATE = 16_000;
    private static final int CHUNK = RATE / 20;

    /** A minute of noise that pauses as speech does, from a device that keeps four seconds of it. */
    private static final class Phone implements AudioSource, Clock {
        private static final int SECONDS = 60;
        private final Random random = new Random(3);
        private double now;
        private long read;

        @Override
        public int sampleRate() {
            return RATE;
        }

        @Override
        public int bufferFrames() {
            return 4 * RATE;
        }

        @Override
        public void start() {}

        @Override
        public int read(short[] pcm, int frames) {
            now = Math.max(now, (double) (read + frames) / RATE);
            for (int i = 0; i < frames; i++, read++) {
                pcm[i] = (short) (random.nextGaussian() * (read % 8_000 < 6_400 ? 3_000 : 30));
            }
            return read < SECONDS * RATE ? frames : GONE;
        }

        @Override
        public void stop() {}

        @Override
        public void release() {}

        @Override
        public long nanos() {
            return Math.round(now * 1e9);
        }

        @Override
        public void pause(long millis) {
            now += millis * 1e-3;
        }
    }

    /** What a phone tells in that minute where a window takes so long to score. */
    private static final class Told implements Capture.Listener, LiveDetector.Listener {
        final List<Reading> readings = new ArrayList<>();
        final Phone phone = new Phone();
        double latest;
        int gaps;
        String end;
        private final LiveDetector live;

        Told(double secondsPerWindow) throws Exception {
            this(secondsPerWindow, 0, new SignedDetector().manifest());
        }

        Told(double secondsPerWindow, float score, String toy) throws Exception {
            String manifest = toy.replace("\"samples\": 20", "\"samples\": 64600");
            Scorer scorer =
                    new Scorer() {
                        @Override
                        public float score(float[] window) {
                            phone.now += secondsPerWindow;
                            return score;
                        }

                        @Override
                        public void close() {}
                    };
            live = new LiveDetector(scorer, Manifest.parse(manifest.getBytes(), "m"), RATE, phone, this);
            new Capture(phone, this, phone, CHUNK).run();
            live.close();
        }

        @Override
        public void heard(short[] pcm, int frames, long waiting) {
            live.hear(pcm, frames, waiting);
        }

        @Override
        public void lost(long frames) {
            gaps++;
            live.lose(frames);
        }

        @Override
        public void muted(boolean muted) {}

        @Override
        public void ended(Capture.End how, String why) {
            end = how + ": " + why;
        }

        @Override
        public void level(double decibels) {}

        @Override
        public void notEnough(double speechSeconds) {}

        @Override
        public void scored(Reading reading) {
            readings.add(reading);
            latest = Math.max(latest, phone.now - reading.seconds);
        }
    }

    @Test
    public void everyWindowIsScoredWhereThereIsTime() throws Exception {
        Told told = new Told(0.3);
        for (int i = 1; i < told.readings.size(); i++) {
            assertEquals(0.5, told.readings.get(i).seconds - told.readings.get(i - 1).seconds, 1e-9);
        }
        assertTrue("two a second", told.readings.size() > 110);
    }

    @Test
    public void aSlowPhoneLeavesWindowsOutAndNoSamples() throws Exception {
        for (double secondsPerWindow : new double[] {0.6, 0.8, 1.5}) {
            Told told = new Told(secondsPerWindow);
            assertEquals(0, told.gaps);
            assertTrue("late by " + told.latest, told.latest < 2 * secondsPerWindow + 1);
            double possible = Phone.SECONDS / secondsPerWindow;
            assertTrue(told.readings.size() + " scored", told.readings.size() > 0.6 * possible);
        }
    }

    @Test
    public void aScoreThatIsNoNumberIsToldAsAFailureWhetherItIsJudgedOrNot() throws Exception {
        String judged = new SignedDetector().manifest();
        String shown =
                judged.replaceAll("\"calibration\": .*?}", "\"calibration\": null")
                        .replaceAll("\"thresholds\": \\[.*?]", "\"thresholds\": []");
        for (String manifest : new String[] {judged, shown}) {
            Told told = new Told(0.1, Float.NaN, manifest);
            assertTrue(told.end, told.end.startsWith("FAILED: the model gave a score that is no number"));
            assertEquals(0, told.readings.size());
        }
    }
}
