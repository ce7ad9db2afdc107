"""What reaches a detector: every format heard alike, and every bad file refused with one line."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pickle
import re
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antispoof import audio
from antispoof.audio import CLIP_SAMPLES, MIN_SAMPLES, SAMPLE_RATE, fit_length, load_audio, validate_waveform
from antispoof.errors import UserError

TONE_HZ = 440.0
TONE_PEAK = 0.3
SECONDS = 2.0
# A Hann window resolves a pure tone of two seconds far better than this; half a hertz is 2 cents at 440.
HZ_TOLERANCE = 0.5
LOSSLESS_LEVEL_TOLERANCE_DB = 0.01  # soxr HQ has a passband flat to within this
LOSSY_LEVEL_TOLERANCE_DB = 0.5
SPEECH_CODEC_LEVEL_TOLERANCE_DB = 2.0  # AMR at 4.75 kbit/s models a voice, not a pure tone: -1.5 measured
MP3_TOLERANCE = 1e-5  # two float decoders of one bit stream differ by rounding: 8e-7 measured
LIMIT_FOR_ONE_FILE_SECONDS = 2.0  # of processor time; 0.04 measured


def tone(rate: int, seconds: float = SECONDS) -> np.ndarray:
    time_axis = np.arange(round(rate * seconds)) / rate
    return (TONE_PEAK * np.sin(2 * np.pi * TONE_HZ * time_axis)).astype(np.float32)


def speech_like(rate: int = SAMPLE_RATE, seconds: float = SECONDS, seed: int = 0) -> np.ndarray:
    """Harmonics of a gliding pitch, switched on and off four times a second, over faint noise."""
    random = np.random.default_rng(seed)
    time_axis = np.arange(round(rate * seconds)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time_axis)) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 20)) * (np.sin(2 * np.pi * 4 * time_axis) > 0)
    return (0.15 * voice + 0.003 * random.standard_normal(len(time_axis))).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, container: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def encoded_by_ffmpeg(path: Path, codec: str, rate: int, sample_format: str, samples: np.ndarray) -> Path:
    if sample_format.startswith("s16"):
        samples = np.round(samples * 32767).astype(np.int16)
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of FFmpeg has no encoder {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format=sample_format, layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        stream.codec_context.open()
        resampler = av.AudioResampler(sample_format, "mono", rate, stream.codec_context.frame_size or None)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def soundfile_reads(data: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(data), dtype="float32")[0]


def by_ffmpeg(path: Path) -> np.ndarray:
    with path.open("rb", buffering=0) as file:
        return audio._to_mono_16k(audio._ffmpeg_blocks(file, audio.MAX_SECONDS), None, audio.MAX_SECONDS)


def assert_is_the_tone(waveform: np.ndarray, level_tolerance_db: float) -> None:
    middle = waveform[SAMPLE_RATE // 2 : SAMPLE_RATE // 2 + SAMPLE_RATE].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 16 * len(middle)))
    assert np.argmax(spectrum) / 16 == pytest.approx(TONE_HZ, abs=HZ_TOLERANCE)
    level_db = 20 * np.log10(np.sqrt(2 * np.mean(middle**2)) / TONE_PEAK)
    assert level_db == pytest.approx(0, abs=level_tolerance_db)


def refusal(path: Path | str, **options: float) -> str:
    """The message that the file is refused with: one printable line that names the file."""
    with pytest.raises(UserError) as caught:
        load_audio(path, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert repr(os.fspath(path)) in message
    return message


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    numbers = itertools.count()

    def write(data: bytes, name: str = "clip") -> Path:
        path = tmp_path / str(next(numbers)) / name
        path.parent.mkdir()
        path.write_bytes(data)
        return path

    return write


# Loading


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


def test_16_bits_are_divided_by_32768(save):
    codes = np.tile(np.array([-32768, -1, 1, 32767], np.int16), MIN_SAMPLES)
    for container in ("WAV", "FLAC"):
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


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 768_000])
def test_other_rates_keep_pitch_level_and_length(save, rate):
    waveform = load_audio(save(encoded(tone(rate), rate, "WAV", "FLOAT")))
    assert abs(len(waveform) - SECONDS * SAMPLE_RATE) <= 1
    assert_is_the_tone(waveform, LOSSLESS_LEVEL_TOLERANCE_DB)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_resampling_block_by_block_is_resampling_at_once(save, monkeypatch, rate):
    path = save(encoded(speech_like(rate), rate, "WAV", "FLOAT"))
    at_once = load_audio(path)
    monkeypatch.setattr(audio, "_BLOCK_FRAMES", 1_000)
    assert np.array_equal(load_audio(path), at_once)


def test_a_tone_above_8_khz_does_not_fold_into_the_signal(save):
    rate = 48_000
    high = (0.5 * np.sin(2 * np.pi * 11_000 * np.arange(2 * rate) / rate)).astype(np.float32)
    waveform = load_audio(save(encoded(high, rate, "WAV", "FLOAT")))
    middle = waveform[SAMPLE_RATE // 2 : -SAMPLE_RATE // 2]
    assert np.abs(middle).max() < 1e-4  # soxr HQ rejects by 100 dB and more


@pytest.mark.parametrize("channels", [2, 6, 32])
def test_channels_are_averaged(save, channels):
    samples = np.stack([speech_like(seed=k) for k in range(channels)], axis=1)
    waveform = load_audio(save(encoded(samples, SAMPLE_RATE, "WAV", "FLOAT")))
    assert np.array_equal(waveform, samples.mean(axis=1, dtype=np.float64).astype(np.float32))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_the_head_alone_is_the_head_of_the_whole(save, container, rate):
    path = save(encoded(speech_like(rate, seconds=6.0), rate, container))
    head = load_audio(path, limit_seconds=audio.CLIP_SECONDS)
    assert len(head) == CLIP_SAMPLES
    assert np.array_equal(head, load_audio(path)[:CLIP_SAMPLES])


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_limit_near_or_beyond_the_end(save, rate):
    """Near the end the resampler's last samples come only with its flush."""
    path = save(encoded(speech_like(rate), rate, "FLAC"))
    whole = load_audio(path)
    assert np.array_equal(load_audio(path, limit_seconds=60), whole)
    assert np.array_equal(load_audio(path, limit_seconds=SECONDS - 1 / SAMPLE_RATE), whole[:-1])


@pytest.mark.parametrize("limit", [0, -1, 0.01, float("nan")])
def test_a_limit_too_short_to_score_is_a_bug_of_the_caller(save, limit):
    with pytest.raises(ValueError, match="limit_seconds"):
        load_audio(save(b"x"), limit_seconds=limit)


def test_the_head_of_a_long_file_is_cheap(save):
    path = save(encoded(np.full(600 * SAMPLE_RATE, 0.25, np.float32), SAMPLE_RATE, "WAV", "PCM_16"))
    start = time.process_time()
    whole = load_audio(path)
    middle = time.process_time()
    head = load_audio(path, limit_seconds=audio.CLIP_SECONDS)
    assert time.process_time() - middle < (middle - start) / 2
    assert np.array_equal(head, whole[:CLIP_SAMPLES])


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


def flac_with_length(samples: int, data: bytes | None = None) -> bytes:
    """A FLAC file of two seconds that claims another length; 0 stands for unknown."""
    changed = bytearray(data or encoded(speech_like(), SAMPLE_RATE, "FLAC"))
    changed[21] &= 0xF0  # the count's upper 4 of 36 bits
    struct.pack_into(">I", changed, 22, samples)
    return bytes(changed)


def test_a_flac_of_unknown_length_is_read_to_its_end(save):
    whole = soundfile_reads(encoded(speech_like(), SAMPLE_RATE, "FLAC"))
    assert np.array_equal(load_audio(save(flac_with_length(0))), whole)


def test_a_flac_that_only_ffmpeg_can_read_is_read(save):
    data = encoded(speech_like(), SAMPLE_RATE, "FLAC")
    tagged = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + data
    for variant in (tagged, data + b"x" * 1000):
        assert np.array_equal(load_audio(save(variant)), soundfile_reads(data))


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


# fit_length and validate_waveform


@pytest.mark.parametrize("length", [1, 7, 1_600, 32_300, 64_599, 64_600, 64_601, 200_000])
def test_a_short_clip_is_repeated_and_a_long_one_cut(length):
    waveform = speech_like(seconds=length / SAMPLE_RATE)
    fitted = fit_length(waveform)
    assert fitted.dtype == np.float32
    assert np.array_equal(fitted, np.tile(waveform, CLIP_SAMPLES // length + 1)[:CLIP_SAMPLES])


def test_fitting_leaves_the_given_array_alone():
    waveform = speech_like(seconds=5)
    fit_length(waveform)[:] = 0
    assert waveform.any()
    with pytest.raises(ValueError, match="empty"):
        fit_length(np.empty(0, np.float32))


def changed(position: int, value: float) -> np.ndarray:
    waveform = speech_like()
    waveform[position] = value
    return waveform


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        ([0.1] * 16_000, "float32 array, not list"),
        (speech_like().astype(np.float64), "float32 array, not float64"),
        ((speech_like() * 32767).astype(np.int16), "float32 array, not int16"),
        (speech_like()[None], r"shape \(samples,\), not \(1, 32000\)"),
        (np.empty(0, np.float32), "no audio"),
        (speech_like()[: MIN_SAMPLES - 1], "0.100 s: at least 0.1 s"),
        (changed(-1, np.nan), "NaN or infinite"),
        (changed(0, np.inf), "NaN or infinite"),
        (changed(5, -np.inf), "NaN or infinite"),
        (speech_like() * 32767, "peak of"),
        (np.zeros(SAMPLE_RATE, np.float32), "silent"),
        (-np.zeros(SAMPLE_RATE, np.float32), "silent"),
    ],
)
def test_an_array_that_must_not_be_scored_is_refused(waveform, reason):
    with pytest.raises(UserError, match=f"^upload {'.*'}{reason}"):
        validate_waveform(waveform, "upload")


def test_the_shortest_and_loudest_arrays_accepted():
    validate_waveform(speech_like()[:MIN_SAMPLES])
    validate_waveform(changed(0, audio.MAX_PEAK))
    validate_waveform(np.eye(1, MIN_SAMPLES, dtype=np.float32)[0])


# Refusals: the file


def test_a_missing_file_a_directory_and_an_empty_file(tmp_path, save):
    assert "does not exist" in refusal(tmp_path / "none.wav")
    assert "is a directory" in refusal(tmp_path)
    assert "is empty" in refusal(save(b""))
    assert "cannot be read" in refusal(str(tmp_path / "nul\0.wav"))
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))
    assert "cannot be read" in refusal(save(b"x") / "below.wav")


def test_a_pipe_or_a_device_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo.wav")
    assert "pipe or a device" in refusal(tmp_path / "fifo.wav")
    assert "pipe or a device" in refusal("/dev/zero")


def test_a_file_without_read_permission(save):
    path = save(encoded(speech_like(), SAMPLE_RATE, "WAV"))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)  # root reads everything
    try:
        assert "Permission denied" in refusal(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    "name", ["a\nb.wav", "a\r\x1b[31mred.wav", "a\u2028b.wav", "a\udcff.wav", "l'été .wav"]
)
def test_a_strange_name_stays_on_one_line(save, name):
    refusal(save(b"no audio at all", name))
    assert len(load_audio(save(encoded(speech_like(), SAMPLE_RATE, "WAV"), name))) == SECONDS * SAMPLE_RATE


PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)


@pytest.mark.parametrize(
    "suffix", ["wav", "flac", "mp3", "raw", "gsm", "vox", "au", "snd", "amr", "txt", "m3u8"]
)
@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 40,
        b"one line of text after another\n" * 2_000,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile clip.wav\n",
        b"1\n00:00:01,000 --> 00:00:02,000\nhello\n",
        PNG + bytes(5_000),
        pickle.dumps(speech_like()),
        np.random.default_rng(1).bytes(50_000),
        bytes(50_000),
        b"\xff\xfb" * 20_000,
        b"\xff",
        b"RIFF",
        b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\x10\0\0\0" * 500,
        b"RIFF\x00\x10\0\0WAVERIFF\x00\x0f\0\0WAVELIST" + bytes(4_000),
        b"fLaC" + bytes(2_000),
        b"OggS" + bytes(2_000),
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(2_000),
    ],
    ids=["html", "text", "hls", "concat", "srt", "png", "pickle", "random", "zeros", "sync", "byte", "riff",
         "lists", "nested", "flac", "ogg", "id3"],
)  # fmt: skip
def test_what_is_not_audio_is_refused_under_any_name(save, data, suffix):
    refusal(save(data, f"clip.{suffix}"))


@pytest.mark.parametrize("name", ["list.m3u8", "list.txt"])
def test_a_play_list_does_not_lead_to_other_files(tmp_path, name):
    """FFmpeg, left to itself, opens the files and addresses that a text names."""
    clip = encoded_by_ffmpeg(tmp_path / "clip.aac", "aac", SAMPLE_RATE, "fltp", tone(SAMPLE_RATE))
    entry = f"#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clip.as_uri()}\n#EXT-X-ENDLIST\n"
    (tmp_path / name).write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n{entry}")
    assert "not audio in a known format" in refusal(tmp_path / name)


def test_random_bytes_are_never_heard_as_sound(save):
    random = np.random.default_rng(2)
    for head in (b"", b"\xff\xfb\x90\x64", b"\xff\xf1\x50\x80", b"ID3\x03\0\0\0\0\0\0", b"\x0b\x77"):
        for _ in range(20):
            refusal(save(head + random.bytes(20_000)))


# Refusals: the audio


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"),
        ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"),
        ("NIST", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_file_cut_short_is_refused(save, container, subtype, share):
    data = encoded(speech_like(), SAMPLE_RATE, container, subtype)
    message = refusal(save(data[: int(share * len(data))]))
    assert re.search("cut short|header is damaged", message)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "sample_format"),
    [
        ("clip.m4a", "aac", 16_000, "fltp"), ("clip.webm", "libopus", 48_000, "flt"),
        ("clip.opus", "libopus", 48_000, "flt"), ("clip.flac", "flac", 96_000, "s16"),
        ("clip.3gp", "libopencore_amrnb", 8_000, "s16"),
    ],
)  # fmt: skip
def test_a_phone_recording_cut_short_is_refused(tmp_path, name, codec, rate, sample_format):
    """Bare MP3, AAC and AMR streams are not here: nothing in them says how long they should be."""
    path = encoded_by_ffmpeg(tmp_path / name, codec, rate, sample_format, speech_like(rate))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    assert re.search("cut short|header is damaged", refusal(path))


@pytest.mark.parametrize("samples", [32_001, 320_000])
def test_a_flac_that_promises_more_than_it_holds_is_refused(save, samples):
    assert "cut short" in refusal(save(flac_with_length(samples)))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_file_with_a_hole_in_it_is_refused(save, subtype):
    data = encoded(speech_like(seconds=10), SAMPLE_RATE, "OGG", subtype)
    assert "holds" in refusal(save(data[: len(data) // 3] + data[len(data) * 2 // 3 :]))


def test_a_flac_with_a_flipped_bit_is_refused(save):
    """Bits of the audio, that is: what the two decoders make of them differs, and neither is right."""
    data = encoded(speech_like(), SAMPLE_RATE, "FLAC")
    for position in range(500, len(data), len(data) // 25):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        refusal(save(damaged))


@pytest.mark.parametrize(
    ("samples", "subtype", "reason"),
    [
        (changed(20_000, np.nan), "FLOAT", "NaN or infinite"),
        (changed(20_000, -np.inf), "FLOAT", "NaN or infinite"),
        (speech_like().astype(np.float64) * 1e300, "DOUBLE", "NaN or infinite"),
        (speech_like() * 32767, "FLOAT", "scaled to -1..1"),
        (np.zeros(SAMPLE_RATE, np.float32), "PCM_16", "silent"),
        (np.stack([speech_like(), -speech_like()], axis=1), "FLOAT", "silent"),
        (speech_like()[: MIN_SAMPLES - 1], "PCM_16", "lasts 0.100 s: at least 0.1 s"),
        (speech_like()[:1], "PCM_16", "lasts 0.000 s"),
        (np.zeros((0,), np.float32), "PCM_16", "no audio"),
        (np.zeros((1_600, 33), np.float32), "PCM_16", "33 channels"),
        (np.zeros((1_600, 1_000), np.float32), "PCM_16", "1000 channels"),
    ],
)
def test_audio_that_must_not_be_scored_is_refused(save, samples, subtype, reason):
    assert reason in refusal(save(encoded(samples, SAMPLE_RATE, "WAV", subtype)))


@pytest.mark.parametrize("rate", [1, 3_999, 768_001, 10_000_000])
def test_an_absurd_sample_rate_is_refused(save, rate):
    assert f"sample rate of {rate} Hz" in refusal(save(encoded(speech_like(), rate, "WAV", "PCM_16")))


def test_doubles_beyond_float32_are_refused_by_both_decoders(save):
    path = save(encoded(speech_like().astype(np.float64) * 1e300, SAMPLE_RATE, "WAV", "DOUBLE"))
    with pytest.raises(audio._Refused, match="infinite"):
        by_ffmpeg(path)


def test_0_1_s_at_any_rate_is_long_enough(save):
    for rate in (8_000, 44_100, 48_000):
        assert len(load_audio(save(encoded(speech_like(rate, 0.1), rate, "WAV")))) == MIN_SAMPLES


def test_a_header_that_claims_too_long_a_recording_is_refused_unread(save):
    data = flac_with_length(0xFFFF_FFFF)
    start = time.process_time()
    for options in ({}, {"limit_seconds": 1.0}):
        assert "lasts 268435 s by its header" in refusal(save(data), **options)
    assert time.process_time() - start < 0.1
    assert "at most 1 s" in refusal(save(encoded(speech_like(), SAMPLE_RATE, "WAV")), max_seconds=1)


@pytest.mark.parametrize("header", [b"", b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)], ids=["libsndfile", "ffmpeg"])
def test_a_decompression_bomb_is_stopped_on_the_way(save, header):
    """Ten hours of silence are 1.5 MB of FLAC, which does not say how long it is."""
    seconds = 100
    quiet = encoded(np.full(seconds * SAMPLE_RATE, 0.25, np.float32), SAMPLE_RATE, "FLAC")
    path = save(header + flac_with_length(0, quiet))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "is longer than 10 s" in refusal(path, max_seconds=10)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB on Linux


def test_a_file_that_changes_its_rate_on_the_way_is_refused(tmp_path):
    slow = encoded_by_ffmpeg(tmp_path / "a.aac", "aac", 16_000, "fltp", tone(16_000))
    fast = encoded_by_ffmpeg(tmp_path / "b.aac", "aac", 44_100, "fltp", tone(44_100))
    slow.write_bytes(slow.read_bytes() + fast.read_bytes())
    assert "changes its sample rate" in refusal(slow)


def test_the_libraries_write_nothing_to_the_terminal(save):
    """Damaged MP3 and SDS files make libsndfile write to stderr and stdout, past Python."""
    mp3 = bytearray(encoded(speech_like(), SAMPLE_RATE, "MP3"))
    mp3[2_000:2_400] = np.random.default_rng(3).bytes(400)
    sds = bytearray(encoded(speech_like(), SAMPLE_RATE, "SDS", "PCM_16"))
    sds[2_000:2_400] = bytes(400)
    paths = [save(mp3), save(sds), save(encoded(speech_like(), SAMPLE_RATE, "FLAC")[:-99]), save(b"no audio")]
    code = (
        "import sys\nfrom antispoof.audio import load_audio\nfrom antispoof.errors import UserError\n"
        "for path in sys.argv[1:]:\n try: load_audio(path)\n except UserError: pass\nprint('done')"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[1]
    )
    assert (result.stdout, result.stderr) == ("done\n", "")


# Damage of every kind

SEEDS = [
    encoded(speech_like(seconds=0.5), SAMPLE_RATE, container, subtype)
    for container, subtype in [
        ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"),
        ("OGG", "OPUS"), ("MP3", None), ("AIFF", "PCM_16"), ("CAF", "ALAC_16"), ("NIST", "PCM_16"),
    ]
]  # fmt: skip


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """A valid file with bytes changed, put in or taken out, most often in the header, and perhaps cut."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 8))):
        reach = draw(st.sampled_from([64, len(data)]))
        start = draw(st.integers(0, min(reach, len(data)) - 1))
        patch = draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"]) | st.binary(max_size=6))
        data[start : start + draw(st.integers(0, 6))] = patch
    return bytes(data[: draw(st.just(len(data)) | st.integers(1, len(data)))])


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "clip"


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=damaged_files())
def test_a_damaged_file_is_heard_or_refused_and_nothing_else(scratch, data):
    scratch.write_bytes(data)
    start = time.process_time()
    with contextlib.suppress(UserError):
        waveform = load_audio(scratch)
        validate_waveform(waveform)
        assert len(waveform) <= audio.MAX_SECONDS * SAMPLE_RATE
    assert time.process_time() - start < LIMIT_FOR_ONE_FILE_SECONDS


# Real speech


def test_real_clips_are_read_as_soundfile_and_ffmpeg_read_them(shared):
    clips = sorted((shared / "audio").rglob("*.flac"))[::100]
    assert clips
    for clip in clips:
        waveform = load_audio(clip)
        assert np.array_equal(waveform, soundfile.read(clip, dtype="float32")[0])
        assert np.array_equal(waveform, by_ffmpeg(clip))
