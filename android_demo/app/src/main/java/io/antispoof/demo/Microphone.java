package io.antispoof.demo;

import android.content.Context;
import android.media.AudioFormat;
import android.media.AudioManager;
import android.media.AudioRecord;
import android.media.MediaRecorder;
import io.antispoof.core.AudioSource;
import io.antispoof.core.CaptureException;

/**
 * Android's microphone with as little processing as the phone has to offer: noise suppression and gain control
 * erase what detectors listen for.
 */
final class Microphone implements AudioSource {
    /** Constants of Android 7, by their values: this is compiled against Android 6. */
    private static final int UNPROCESSED = 9;

    private static final String HAS_UNPROCESSED = "android.media.property.SUPPORT_AUDIO_SOURCE_UNPROCESSED";
    private static final int ERROR_DEAD_OBJECT = -6;

    /** What phones record at, so that the resampler is ours, whose scores were tested, and not theirs. */
    private static final int[] RATES = {48_000, 44_100, 16_000};

    private static final int BUFFER_SECONDS = 4;
    private static final int BYTES_PER_FRAME = 2;

    private final AudioRecord record;

    private Microphone(AudioRecord record) {
        this.record = record;
    }

    /**
     * Opens it; the caller releases it.
     *
     * @throws CaptureException there is none, another app holds it, or the permission is missing
     */
    static Microphone open(Context context) throws CaptureException {
        int source = bestSource(context);
        for (int rate : RATES) {
            AudioRecord record = tryOpen(source, rate);
            if (record != null) {
                return new Microphone(record);
            }
        }
        throw new CaptureException("the microphone cannot be opened; close other apps that record and try again");
    }

    private static int bestSource(Context context) {
        AudioManager audio = (AudioManager) context.getSystemService(Context.AUDIO_SERVICE);
        boolean unprocessed = audio != null && "true".equals(audio.getProperty(HAS_UNPROCESSED));
        return unprocessed ? UNPROCESSED : MediaRecorder.AudioSource.VOICE_RECOGNITION;
    }

    private static AudioRecord tryOpen(int source, int rate) {
        int channels = AudioFormat.CHANNEL_IN_MONO;
        int encoding = AudioFormat.ENCODING_PCM_16BIT;
        int least = AudioRecord.getMinBufferSize(rate, channels, encoding);
        if (least <= 0) {
            return null;
        }
        AudioRecord record;
        try {
            int bytes = Math.max(least, rate * BYTES_PER_FRAME * BUFFER_SECONDS);
            record = new AudioRecord(source, rate, channels, encoding, bytes);
        } catch (IllegalArgumentException unsupported) {
            return null;
        }
        if (record.getState() == AudioRecord.STATE_INITIALIZED) {
            return record;
        }
        record.release();
        return null;
    }

    @Override
    public int sampleRate() {
        return record.getSampleRate();
    }

    @Override
    public int bufferFrames() {
        return record.getBufferSizeInFrames();
    }

    @Override
    public void start() throws CaptureException {
        try {
            record.startRecording();
        } catch (IllegalStateException notInitialized) {
            throw new CaptureException("the microphone is not ready; try again");
        }
        if (record.getRecordingState() != AudioRecord.RECORDSTATE_RECORDING) {
            throw new CaptureException("the microphone did not start; another app may hold it");
        }
    }

    @Override
    public int read(short[] pcm, int frames) {
        int count = record.read(pcm, 0, frames);
        if (count >= 0) {
            return count;
        }
        return count == ERROR_DEAD_OBJECT ? GONE : BROKEN;
    }

    @Override
    public void stop() {
        if (record.getState() == AudioRecord.STATE_INITIALIZED) {
            record.stop();
        }
    }

    @Override
    public void release() {
        record.release();
    }
}
