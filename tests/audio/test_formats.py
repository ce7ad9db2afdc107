"""Every format is heard alike: the samples that soundfile and FFmpeg read, at their pitch and level."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest
import soundfile

from antispoof import audio
from antispoof.audio import MIN_SAMPLES, SAMPLE_RATE, load_audio
from tests.audio.sound_files import (
    LOSSY_LEVEL_TOLERANCE_DB,
    SECONDS,
    assert_is_the_tone,
    by_ffmpeg,
    encoded,
    encoded_by_ffmpeg,
    flac_with_length,
    soundfile_reads,
    speech_like,
    tone,
)

SPEECH_CODEC_LEVEL_TOLERANCE_DB = 2.0  # AMR at 4.75 kbit/s models a voice, not a pure tone: -1.5 measured
MP3_TOLERANCE = 1e-5  # two float decoders of one bit stream differ by rounding: 8e-7 measured


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16"),
        ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("NIST", "PCM_16"),
        ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
    ],
)  # fmt: skip
def test_a_16_khz_mono_file_is_bit_for_bit_what_soundfile_reads(save, container, subtype):
    data = encoded(speech_like(), SAMPLE_RATE, container, subtype)
    waveform = load_audio(save(data))
    assert waveform.dtype == np.float32
    assert np.array_equal(waveform, soundfile_reads(data))


def test_mp3_agrees_with_soundfile_in_length_and_values(save):
    data = encoded(speech_like(), SAMPLE_RATE, "MP3")
    np.testing.assert_allclose(load_audio(save(data)), soundfile_reads(data), rtol=0, atol=MP3_TOLERANCE)


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_16_bits_are_divided_by_32768(container, save):
    codes = np.tile(np.array([-32768, -1, 1, 32767], np.int16), MIN_SAMPLES)
    waveform = load_audio(save(encoded(codes, SAMPLE_RATE, container, "PCM_16")))
    assert waveform[:4].tolist() == [-1.0, -1 / 32768, 1 / 32768, 32767 / 32768]


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"),
     ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "ULAW")],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_ffmpeg_decodes_to_the_same_bits_as_libsndfile(save, container, subtype, channels):
    samples = np.stack([speech_like(seed=k) for k in range(channels)], axis=1)
    path = save(encoded(samples, SAMPLE_RATE, container, subtype))
    assert np.array_equal(by_ffmpeg(path), load_audio(path))


@pytest.mark.parametrize(
    ("name", "codec", "rate", "sample_format"),
    [
        ("clip.m4a", "aac", 44_100, "fltp"), ("clip.m4a", "aac", 8_000, "fltp"),
        ("clip.m4a", "alac", 16_000, "s16p"), ("clip.mka", "aac", 8_000, "fltp"),
        ("clip.aac", "aac", 16_000, "fltp"), ("clip.mp3", "libmp3lame", 44_100, "fltp"),
        ("clip.webm", "libopus", 48_000, "flt"), ("clip.opus", "libopus", 48_000, "flt"),
        ("clip.amr", "libopencore_amrnb", 8_000, "s16"), ("clip.3gp", "libopencore_amrnb", 8_000, "s16"),
        ("clip.ac3", "ac3", 48_000, "fltp"), ("clip.flac", "flac", 16_000, "s16"),
        ("clip.mp4", "flac", 16_000, "s16"), ("clip.avi", "pcm_s16le", 16_000, "s16"),
    ],
)  # fmt: skip
def test_phone_and_web_formats_keep_pitch_level_and_length(tmp_path, name, codec, rate, sample_format):
    path = encoded_by_ffmpeg(tmp_path / name, codec, rate, sample_format, tone(rate))
    waveform = load_audio(path)
    speech_codec = codec == "libopencore_amrnb"
    tolerance = SPEECH_CODEC_LEVEL_TOLERANCE_DB if speech_codec else LOSSY_LEVEL_TOLERANCE_DB
    assert_is_the_tone(waveform, tolerance)
    # Coders work in packets: AAC at 8 kHz of 128 ms, before which it puts as much again.
    assert SECONDS <= len(waveform) / SAMPLE_RATE <= SECONDS + 2 * 0.128
    head = load_audio(path, limit_seconds=1.0)
    assert np.array_equal(head, waveform[:SAMPLE_RATE])


def test_a_title_in_another_encoding_does_no_harm(tmp_path):
    path = encoded_by_ffmpeg(tmp_path / "clip.m4a", "aac", SAMPLE_RATE, "fltp", tone(SAMPLE_RATE))
    data = path.read_bytes()
    title = b"Lavf"  # the encoder's own tag
    assert title in data
    path.write_bytes(data.replace(title, b"\xe9t\xe9\xff"))
    assert_is_the_tone(load_audio(path), LOSSY_LEVEL_TOLERANCE_DB)


def test_the_sound_track_of_a_video_is_read(tmp_path):
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for k in range(10):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * k, np.uint8), format="rgb24")
            container.mux(pictures.encode(picture))
        frame = av.AudioFrame.from_ndarray(tone(SAMPLE_RATE)[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(sound.encode(frame))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    assert_is_the_tone(load_audio(path), LOSSY_LEVEL_TOLERANCE_DB)


@pytest.mark.parametrize(
    ("riff_size", "data_size"),
    [(0, 0), (36, 0), (8, 0), (0xFFFFFFFF, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000)],
)
def test_a_wav_written_to_a_pipe_is_read_to_its_end(save, riff_size, data_size):
    data = bytearray(encoded(speech_like(), SAMPLE_RATE, "WAV", "PCM_16"))
    whole = soundfile_reads(bytes(data))
    struct.pack_into("<I", data, 4, riff_size)
    struct.pack_into("<I", data, data.index(b"data") + 4, data_size)
    assert np.array_equal(load_audio(save(data)), whole)


def test_a_flac_of_unknown_length_is_read_to_its_end(save):
    whole = soundfile_reads(encoded(speech_like(), SAMPLE_RATE, "FLAC"))
    assert np.array_equal(load_audio(save(flac_with_length(0))), whole)


@pytest.mark.parametrize(
    ("before", "behind"), [(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10), b""), (b"", b"x" * 1000)]
)
def test_a_flac_that_only_ffmpeg_can_read_is_read(before, behind, save):
    data = encoded(speech_like(), SAMPLE_RATE, "FLAC")
    assert np.array_equal(load_audio(save(before + data + behind)), soundfile_reads(data))


def test_a_flac_that_libsndfile_gives_up_on_halfway_is_read_by_ffmpeg(save, monkeypatch):
    """The frames of both decoders must not be mixed: libsndfile's first half is thrown away."""
    path = save(encoded(speech_like(48_000), 48_000, "FLAC"))
    whole = load_audio(path)
    real = audio._frames_of

    def gives_up(*arguments):
        yield next(real(*arguments))
        raise soundfile.LibsndfileError(101)

    monkeypatch.setattr(audio, "_frames_of", gives_up)
    assert np.array_equal(load_audio(path), whole)


def test_real_clips_are_read_as_soundfile_and_ffmpeg_read_them(shared):
    clips = sorted((shared / "audio").rglob("*.flac"))[::100]
    assert clips
    for clip in clips:
        waveform = load_audio(clip)
        assert np.array_equal(waveform, soundfile.read(clip, dtype="float32")[0])
        assert np.array_equal(waveform, by_ffmpeg(clip))
