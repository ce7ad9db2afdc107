"""What is no audio file at all is refused with one line, whatever its name says."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest

from antispoof.audio import SAMPLE_RATE, load_audio
from tests.audio.sound_files import SECONDS, encoded, encoded_by_ffmpeg, refusal, speech_like, tone


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
