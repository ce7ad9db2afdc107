"""What a channel does to speech, each by its measured effect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antispoof import channel
from antispoof.audio import CLIP_SAMPLES, SAMPLE_RATE
from antispoof.errors import UserError
from antispoof.speechlike import speech_like

LENGTHS = (1600, 1601, 8000, CLIP_SAMPLES, 70_000)
LAG_TOLERANCE = 2  # samples; the best lag of a codec that models a voice wanders by one
SNR_TOLERANCE_DB = 0.01  # of float32 sums
SLOPE_TOLERANCE_DB = 0.5  # per octave, of random noise over 4 s
STOP_BAND_DB = -60.0  # the filter is made for -70; a test of noise through it sees its edges too
PASS_BAND_TOLERANCE_DB = 0.1

# What each codec at least keeps of speech (correlation with it) and must not keep (an exact copy).
LEAST_CORRELATION = {
    **{"mp3": 0.95, "aac": 0.85, "opus": 0.7, "g722": 0.95},
    **{"g711-mu": 0.8, "g711-a": 0.8, "amr-nb": 0.6, "amr-wb": 0.6},
}
NARROW_BAND = ("g711-mu", "g711-a", "amr-nb")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return speech_like(3, CLIP_SAMPLES)


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2)))


def lag(late: np.ndarray, reference: np.ndarray) -> int:
    """Samples by which ``late`` lags behind, by cross-correlation; negative where it leads."""
    points = 2 ** int(np.ceil(np.log2(len(late) + len(reference))))
    product = np.fft.rfft(late, points) * np.conj(np.fft.rfft(reference, points))
    best = int(np.argmax(np.fft.irfft(product, points)))
    return best if best < points // 2 else best - points


def level_db(waveform: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Mean power per bin of a band, in dB."""
    windowed = waveform.astype(np.float64) * np.hanning(len(waveform))
    power = np.abs(np.fft.rfft(windowed)) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    return float(10 * np.log10(power[(frequency >= low_hz) & (frequency < high_hz)].mean()))


def test_a_build_has_the_codecs_of_the_telephone_and_the_web() -> None:
    assert {"mp3", "aac", "opus", "g711-mu", "g711-a"} <= set(channel.codecs())


@pytest.mark.parametrize("codec", channel.codecs())
class TestCodecs:
    def test_changes_speech_but_keeps_it(self, codec: str, speech: np.ndarray) -> None:
        heard = channel.transcode(speech, codec)
        assert heard.dtype == np.float32
        assert LEAST_CORRELATION[codec] < np.corrcoef(heard, speech)[0, 1] < 0.9999

    @pytest.mark.parametrize("seed", [4, 5])
    def test_stays_in_step(self, codec: str, seed: int) -> None:
        speech = speech_like(seed, CLIP_SAMPLES)
        assert abs(lag(channel.transcode(speech, codec), speech)) <= LAG_TOLERANCE

    @pytest.mark.parametrize("samples", LENGTHS)
    def test_keeps_the_length_and_the_end(self, codec: str, samples: int) -> None:
        noise = 0.1 * channel.white_noise(samples, np.random.default_rng(0))
        heard = channel.transcode(noise, codec)
        assert heard.shape == noise.shape
        # Noise up to the last sample is heard up to the last 10 ms, where the codec's band lets it.
        assert rms(heard[-160:]) > 0.1 * rms(noise)

    def test_hears_silence_as_finite(self, codec: str) -> None:
        heard = channel.transcode(np.zeros(8000, np.float32), codec)
        assert np.isfinite(heard).all()
        assert np.abs(heard).max() < 0.01

    def test_gives_the_same_twice_and_leaves_its_input_alone(self, codec: str, speech: np.ndarray) -> None:
        before = speech.copy()
        np.testing.assert_array_equal(channel.transcode(speech, codec), channel.transcode(speech, codec))
        np.testing.assert_array_equal(speech, before)

    def test_narrow_band_codecs_end_at_4_khz(self, codec: str) -> None:
        noise = 0.1 * channel.white_noise(CLIP_SAMPLES, np.random.default_rng(1))
        heard = channel.transcode(noise, codec)
        drop = level_db(heard, 4500, 8000) - level_db(noise, 4500, 8000)
        assert (drop < -40) == (codec in NARROW_BAND)

    def test_clips_what_exceeds_full_scale(self, codec: str, speech: np.ndarray) -> None:
        loud = channel.transcode(speech * np.float32(30), codec)
        assert 0.5 < np.abs(loud).max() <= 1


@pytest.mark.parametrize(("codec", "low", "high"), [("mp3", 16_000, 64_000), ("opus", 8_000, 48_000)])
def test_more_bits_keep_more(codec: str, low: int, high: int, speech: np.ndarray) -> None:
    error = [rms(channel.transcode(speech, codec, bits) - speech) for bits in (low, high)]
    assert error[1] < 0.9 * error[0]


def test_refuses_codecs_and_bit_rates_that_do_not_exist(speech: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"no codec 'wax'; choose from: mp3, "):
        channel.transcode(speech, "wax")
    with pytest.raises(UserError, match="one bit rate only"):
        channel.transcode(speech, "g711-mu", 32_000)
    with pytest.raises(UserError, match="cannot encode at 1 bit/s"):
        channel.transcode(speech, "opus", 1)
    for absent in {"amr-nb", "amr-wb"} - set(channel.codecs()):
        with pytest.raises(UserError, match=f"this build of FFmpeg cannot encode '{absent}'"):
            channel.transcode(speech, absent)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0, 30.0])
@pytest.mark.parametrize("noise_samples", [777, CLIP_SAMPLES, 80_000])
def test_noise_reaches_the_ratio(snr_db: float, noise_samples: int, speech: np.ndarray) -> None:
    noise = 3 * channel.coloured_noise(noise_samples, np.random.default_rng(2))
    added = channel.add_noise(speech, noise, snr_db).astype(np.float64) - speech
    assert 20 * np.log10(rms(speech) / rms(added)) == pytest.approx(snr_db, abs=SNR_TOLERANCE_DB)


def test_noise_without_a_ratio_adds_nothing(speech: np.ndarray) -> None:
    silence = np.zeros(100, np.float32)
    np.testing.assert_array_equal(channel.add_noise(speech, silence, 10), speech)
    np.testing.assert_array_equal(channel.add_noise(silence, speech, 10), silence)


@pytest.mark.parametrize(("colour", "slope_db"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_noise_has_its_slope(colour: str, slope_db: float) -> None:
    noise = channel.coloured_noise(CLIP_SAMPLES, np.random.default_rng(3), colour)
    assert rms(noise) == pytest.approx(1, abs=1e-5)
    octaves = [level_db(noise, low, 2 * low) for low in (250, 500, 1000, 2000)]
    assert np.diff(octaves) == pytest.approx(slope_db, abs=SLOPE_TOLERANCE_DB)


def test_noise_follows_its_seed() -> None:
    def draw(seed: int) -> np.ndarray:
        return channel.coloured_noise(1000, np.random.default_rng(seed))

    np.testing.assert_array_equal(draw(1), draw(1))
    assert abs(np.corrcoef(draw(1), draw(2))[0, 1]) < 0.2
    with pytest.raises(UserError, match="no noise is called 'plaid'"):
        channel.coloured_noise(10, np.random.default_rng(0), "plaid")


@pytest.mark.parametrize(("low_hz", "high_hz"), [(0, 3600), (300, 3400), (300, 8000), (1000, 4000)])
def test_band_limits_remove_the_rest_and_only_that(low_hz: float, high_hz: float) -> None:
    noise = channel.white_noise(CLIP_SAMPLES, np.random.default_rng(4))
    heard = channel.band_limit(noise, low_hz, high_hz)
    inside = (low_hz + 100 if low_hz else 0, high_hz - 100 if high_hz < 8000 else 8001)
    assert level_db(heard, *inside) == pytest.approx(level_db(noise, *inside), abs=PASS_BAND_TOLERANCE_DB)
    if low_hz:
        assert level_db(heard, 0, low_hz - 110) - level_db(noise, 0, low_hz - 110) < STOP_BAND_DB
    if high_hz < 8000:
        beyond = (high_hz + 110, 8001)
        assert level_db(heard, *beyond) - level_db(noise, *beyond) < STOP_BAND_DB
    assert lag(heard, noise) == 0


def test_a_band_as_wide_as_the_signal_changes_nothing(speech: np.ndarray) -> None:
    np.testing.assert_allclose(channel.band_limit(speech), speech, atol=1e-7)
    with pytest.raises(UserError, match="a band lies within 0 to 8000 Hz, not from 300 to 9000"):
        channel.band_limit(speech, 300, 9000)


def test_a_room_decays_as_told() -> None:
    rt60 = 0.4
    response = channel.synthetic_impulse_response(rt60, np.random.default_rng(5), 6.0).astype(np.float64)
    assert 10 * np.log10(response[0] ** 2 / np.sum(response[1:] ** 2)) == pytest.approx(6, abs=0.01)
    # Schroeder's backward integral, between 5 and 25 dB below its start.
    energy = np.cumsum(response[:0:-1] ** 2)[::-1]
    decay_db = 10 * np.log10(energy / energy[0])
    start, end = (int(np.argmax(decay_db < -fall)) for fall in (5, 25))
    assert 3 * (end - start) / SAMPLE_RATE == pytest.approx(rt60, rel=0.1)


@pytest.mark.parametrize("sign", [1, -1])
def test_reverberation_keeps_level_and_place(sign: int, speech: np.ndarray) -> None:
    room = channel.synthetic_impulse_response(0.5, np.random.default_rng(6))
    late_room = sign * np.concatenate((np.zeros(500, np.float32), room))
    heard = channel.reverberate(speech, late_room)
    assert heard.shape == speech.shape
    assert heard.dtype == np.float32
    assert rms(heard) == pytest.approx(rms(speech), rel=1e-4)
    assert lag(heard, speech) == 0
    assert 0.5 < np.corrcoef(heard, speech)[0, 1] < 0.97


def test_reverberation_outlasts_the_sound() -> None:
    click = np.zeros(8000, np.float32)
    click[1000] = 0.5
    room = channel.synthetic_impulse_response(0.3, np.random.default_rng(7), 0.0)
    heard = channel.reverberate(click, room)
    assert np.abs(heard[:1000]).max() < 1e-6
    assert rms(heard[1100:2000]) > 10 * rms(heard[5000:6000])


@pytest.mark.parametrize("gain_db", [-12.0, -6.0, 0.0, 6.0])
def test_gain_changes_the_level_in_16_bits(gain_db: float) -> None:
    speech = channel.apply_gain(speech_like(8), -12)
    heard = channel.apply_gain(speech, gain_db)
    assert 20 * np.log10(rms(heard) / rms(speech)) == pytest.approx(gain_db, abs=0.05)
    np.testing.assert_array_equal(heard * 32768, np.round(heard * 32768))


def test_gain_clips_at_full_scale(speech: np.ndarray) -> None:
    heard = channel.apply_gain(speech, 40)
    assert heard.max() == np.float32(32767 / 32768)
    assert heard.min() == -1


def test_clipping_follows_the_peak(speech: np.ndarray) -> None:
    for level in (0.1, 1.0):
        clipped = channel.clip_level(np.float32(level) * speech, 0.25)
        assert np.abs(clipped).max() == pytest.approx(0.25 * level * np.abs(speech).max(), rel=1e-6)
    np.testing.assert_array_equal(channel.clip_level(speech, 1.0), speech)
    with pytest.raises(UserError, match="share of the peak"):
        channel.clip_level(speech, 0.0)


def test_packets_are_lost_at_the_rate_and_concealed() -> None:
    speech = np.ones(320 * 2000, np.float32)
    heard = channel.lose_packets(speech, 0.1, np.random.default_rng(9)).reshape(2000, 320)
    assert (heard == heard[:, :1]).all()
    # 2000 packets at 10 %: the standard deviation of the share lost is 0.7 %.
    assert np.mean(heard[:, 0] < 1) == pytest.approx(0.1, abs=0.02)
    assert set(np.unique(heard)) <= {0.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125}
    assert {0.5, 0.25} <= set(np.unique(heard))


def test_a_lost_packet_repeats_the_one_before() -> None:
    speech = speech_like(10, 16_100)
    heard = channel.lose_packets(speech, 0.3, np.random.default_rng(10))
    assert heard.shape == speech.shape
    packets, original = (x[:16_000].reshape(50, 320) for x in (heard, speech))
    lost = [i for i in range(1, 50) if not np.array_equal(packets[i], original[i])]
    assert lost
    for index in lost:
        np.testing.assert_array_equal(packets[index], np.float32(0.5) * packets[index - 1])


def test_losing_all_or_nothing(speech: np.ndarray) -> None:
    np.testing.assert_array_equal(channel.lose_packets(speech, 0.0, np.random.default_rng(0)), speech)
    assert not channel.lose_packets(speech, 1.0, np.random.default_rng(0)).any()
    with pytest.raises(UserError, match="share of lost packets"):
        channel.lose_packets(speech, 10, np.random.default_rng(0))
    with pytest.raises(UserError, match="holds no sample"):
        channel.lose_packets(speech, 0.1, np.random.default_rng(0), packet_ms=0)


def test_leading_silence_comes_first(speech: np.ndarray) -> None:
    heard = channel.add_leading_silence(speech, 0.5)
    assert not heard[:8000].any()
    np.testing.assert_array_equal(heard[8000:], speech)


def test_silence_is_cut_off_around_speech_but_not_within() -> None:
    tone = np.float32(0.1) * np.sin(np.arange(4_000, dtype=np.float32))
    hiss = np.float32(1e-4) * channel.white_noise(32_000, np.random.default_rng(0))  # 57 dB below
    recording = hiss.copy()
    recording[8_000:12_000] += tone
    recording[20_000:24_000] += tone
    heard = channel.trim_silence(recording)
    np.testing.assert_array_equal(heard, recording[8_000 - 800 : 24_000 + 800])  # 50 ms at both ends
    np.testing.assert_array_equal(channel.trim_silence(hiss), hiss)
    for nothing in (np.zeros(5_000, np.float32), np.ones(10, np.float32)):
        np.testing.assert_array_equal(channel.trim_silence(nothing), nothing)


@settings(max_examples=30, deadline=None)
@given(
    samples=st.integers(1600, 20_000),
    seed=st.integers(0, 2**32 - 1),
    silent=st.booleans(),
)
def test_everything_keeps_length_type_and_finiteness(samples: int, seed: int, silent: bool) -> None:
    generator = np.random.default_rng(seed)
    waveform = np.float32(0 if silent else 0.3) * channel.white_noise(samples, generator)
    before = waveform.copy()
    for heard in (
        channel.add_noise(waveform, channel.coloured_noise(1 + seed % 5000, generator, "brown"), 5),
        channel.reverberate(waveform, channel.synthetic_impulse_response(0.2, generator)),
        channel.band_limit(waveform, 300, 3400),
        channel.apply_gain(waveform, 12),
        channel.clip_level(waveform, 0.3),
        channel.lose_packets(waveform, 0.2, generator),
    ):
        assert heard.shape == waveform.shape
        assert heard.dtype == np.float32
        assert np.isfinite(heard).all()
    np.testing.assert_array_equal(waveform, before)
