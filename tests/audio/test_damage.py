"""Damaged files are heard or refused with one line, and nothing else: cut, holed, flipped, patched."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antispoof import audio
from antispoof.audio import SAMPLE_RATE, load_audio, validate_waveform
from antispoof.errors import UserError
from tests.audio.sound_files import encoded, encoded_by_ffmpeg, flac_with_length, refusal, speech_like, tone


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
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2]
    )
    assert (result.stdout, result.stderr) == ("done\n", "")


LIMIT_FOR_ONE_FILE_SECONDS = 2.0  # of processor time; 0.04 measured
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
