"""Ways to take a recording apart and put it together again, as synthesis systems do it.

What copy synthesis leaves behind is what vocoders leave behind, and nothing else: voice, words, room and
loudness are those of the recording. Each way is a function of a waveform (samples,) float32, its sample
rate and a generator that draws its settings; the result has the same length.

Sources: WORLD (Morise et al., IEICE 2016) through pyworld; fast Griffin-Lim (Perraudin et al., WASPAA 2013);
linear prediction (Atal and Hanauer, JASA 1971); imaging of transposed convolutions (Pons et al., ICASSP
2021); training on copies alone (Wang and Yamagishi, arXiv 2210.10570).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from scipy import signal
from scipy.linalg import solve_toeplitz
from torch import Tensor
from torch.nn import functional as F

from antispoof.errors import UserError

Resynthesis = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]

TINY = 1e-7
FRAME_MS = 5.0  # of WORLD


def world(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Pitch, smooth envelope and aperiodicity, sometimes at another pitch."""
    pyworld = _pyworld()
    x = waveform.astype(np.float64)
    coarse, times = pyworld.dio(x, rate, frame_period=FRAME_MS)
    pitch = pyworld.stonemask(x, coarse, times, rate)
    envelope = pyworld.cheaptrick(x, pitch, times, rate)
    aperiodicity = pyworld.d4c(x, pitch, times, rate)
    if generator.random() < 0.3:
        pitch = pitch * generator.uniform(0.85, 1.2)
    return _fit(pyworld.synthesize(pitch, envelope, aperiodicity, rate, FRAME_MS), len(x))


def linear_prediction(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Pulses or noise through an all-pole filter that changes every 10 ms."""
    hop = rate // 100
    frame = 3 * hop
    order = int(generator.choice([16, 20, 24]))
    window = np.hanning(frame)
    x = waveform.astype(np.float64)
    source = _pulses_and_noise(x, rate, hop, generator)
    result = np.zeros(len(x))
    for start in range(0, len(x) - frame, hop):
        part = x[start : start + frame] * window
        correlation = np.correlate(part, part, "full")[frame - 1 : frame + order]
        if correlation[0] < 1e-9:
            continue
        correlation[0] *= 1.0001
        poles = solve_toeplitz(correlation[:order], correlation[1:])
        power = max(correlation[0] - poles @ correlation[1:], 1e-12)
        gain = np.sqrt(power / np.square(window).sum())
        voice = signal.lfilter([gain], np.r_[1, -poles], source[start : start + frame])
        result[start : start + frame] += voice * window / 1.5
    return result


def _pulses_and_noise(x: np.ndarray, rate: int, hop: int, generator: np.random.Generator) -> np.ndarray:
    """Returns unit pulses at the pitch where there is one, and noise everywhere."""
    pitch, _ = _pyworld().dio(x, rate, frame_period=10.0)
    pitch = _fit(np.repeat(pitch, hop), len(x))
    beats = np.diff(np.floor(np.cumsum(pitch / rate)), prepend=0) > 0
    noise = generator.standard_normal(len(x))
    breath = generator.uniform(0.015, 0.09)
    return np.where(pitch > 0, beats * np.sqrt(rate / np.maximum(pitch, 50)) + breath * noise, noise)


def mel_griffin_lim(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Magnitudes out of a mel spectrogram, phases out of nothing but consistency."""
    _, magnitude, hop = _through_mel(waveform, rate, generator)
    start = 2 * torch.pi * _uniform(magnitude.shape, generator)
    return griffin_lim(magnitude, start, hop, len(waveform), int(generator.choice([3, 8, 16, 32])))


def mel_phase_noise(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Nearly true magnitudes and phases that are wrong more and more with frequency, as in good vocoders."""
    spectrum, magnitude, hop = _through_mel(waveform, rate, generator)
    frequency = torch.linspace(0, 1, len(spectrum))[:, None]
    onset, steepness = generator.uniform(0.15, 0.5), generator.uniform(6, 20)
    spread = torch.pi * torch.sigmoid((frequency - onset) * steepness)
    phase = spectrum.angle() + spread * (2 * _uniform(spectrum.shape, generator) - 1)
    share = generator.uniform(0.3, 1)
    mixed = magnitude**share * spectrum.abs().clamp(min=TINY) ** (1 - share)
    return griffin_lim(mixed, phase, hop, len(waveform), int(generator.choice([0, 1, 2, 6])))


def phase_damage(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """True magnitudes; phases at random above a frequency, those of steady tones, rebuilt, or coarse."""
    size = int(generator.choice([512, 1024]))
    hop = size // 4
    spectrum = _stft(waveform, size, hop)
    magnitude, angle = spectrum.abs(), spectrum.angle()
    bins = torch.arange(len(spectrum))[:, None]
    way = generator.integers(4)
    if way == 0:
        above = bins / len(spectrum) > generator.uniform(0.2, 0.6)
        angle = torch.where(above, 2 * torch.pi * _uniform(angle.shape, generator), angle)
    elif way == 1:
        angle = bins * torch.arange(angle.shape[1]) * (2 * torch.pi * hop / size)
    elif way == 2:
        start = 2 * torch.pi * _uniform(angle.shape, generator)
        return griffin_lim(magnitude, start, hop, len(waveform), int(generator.choice([2, 5, 15])))
    else:
        step = generator.uniform(0.5, 1.6)
        angle = torch.round(angle / step) * step
    return _istft(torch.polar(magnitude, angle), size, hop, len(waveform))


def upsampling_images(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Zero-stuffed upsampling with filters too short for it: images of the low band in the high band."""
    factor = int(generator.choice([2, 2, 3, 4]))
    low = signal.resample_poly(waveform, 1, factor)
    stuffed = np.zeros(len(low) * factor)
    stuffed[::factor] = low * factor
    taps = factor * int(generator.choice([2, 3, 4]))
    kernel = signal.firwin(taps + 1, 1 / factor) if generator.random() < 0.5 else np.hanning(taps + 2)[1:-1]
    kernel = kernel + 0.05 * np.abs(kernel).max() * generator.standard_normal(len(kernel))
    imaged = _fit(np.convolve(stuffed, kernel / kernel.sum(), "same"), len(waveform))
    if generator.random() < 0.5:
        return imaged
    true, false = _stft(waveform, 1024, 256), _stft(imaged, 1024, 256)
    false = false * (_smooth(true.abs()) / (_smooth(false.abs()) + TINY))
    kept = int(len(true) / factor * generator.uniform(0.8, 1))
    false[:kept] = true[:kept]
    return _istft(false, 1024, 256, len(waveform))


def spectral_filtering(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """The recording's own phases and fine structure under the envelope of another voice, frame by frame.

    Voice conversion by transfer functions (Matrouf et al., Odyssey 2006), attack A06 of ASVspoof 2019.
    """
    size = int(generator.choice([512, 1024]))
    spectrum = _stft(waveform, size, size // 4)
    log = spectrum.abs().clamp(min=TINY).log().numpy()
    cepstrum = np.fft.irfft(log, axis=0)
    kept = int(generator.integers(20, 60))
    cepstrum[kept : size - kept + 1] = 0
    envelope = np.fft.rfft(cepstrum, axis=0).real
    bins = np.arange(len(envelope))
    warp = generator.uniform(0.85, 1.15)
    target = np.stack([np.interp(bins * warp, bins, frame) for frame in envelope.T], axis=1)
    # What picks a filter for each frame does not pick the same one for its neighbour.
    choice = generator.standard_normal((int(generator.integers(6, 24)), envelope.shape[1]))
    choice = signal.lfilter([1], [1, -generator.uniform(0, 0.9)], choice, axis=1)
    choice *= generator.uniform(0.01, 0.08) / choice.std()
    waves = np.cos(np.pi * np.outer(bins / bins[-1], np.arange(1, len(choice) + 1)))
    gain = torch.from_numpy(np.exp((target - envelope + 2 * waves @ choice).clip(-3, 3)).astype(np.float32))
    return _istft(spectrum * gain, size, size // 4, len(waveform))


def unit_concatenation(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Pieces of the recording, each a little displaced, resampled and as loud as chance has it, joined.

    What unit selection does to a voice, such as attack A04 of ASVspoof 2019.
    """
    join = int(rate * generator.uniform(0.002, 0.01))
    displacement = rate * generator.uniform(0.005, 0.04)
    result = np.zeros(len(waveform) + rate)
    position = 0
    while position < len(waveform):
        length = int(rate * generator.uniform(0.04, 0.25)) + join
        start = int(np.clip(position + generator.normal(0, displacement), 0, max(0, len(waveform) - length)))
        unit = waveform[start : start + length]
        if generator.random() < 0.5 and len(unit) > 4 * join:
            stretched = np.linspace(0, len(unit) - 1, int(len(unit) * generator.uniform(0.93, 1.07)))
            unit = np.interp(stretched, np.arange(len(unit)), unit)
        unit = unit * 10 ** (generator.normal(0, 1.0) / 20)
        edge = min(join, len(unit) // 2)
        window = np.ones(len(unit))
        window[:edge] = np.linspace(0, 1, edge, endpoint=False)
        window[len(unit) - edge :] = np.linspace(1, 0, edge, endpoint=False)
        result[position : position + len(unit)] += unit * window
        position += max(len(unit) - edge, 1)
    return result[: len(waveform)]


def cross(original: np.ndarray, copied: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, str]:
    """Returns a copy that keeps half of what its original was, and which half the copy gave.

    A good vocoder leaves less behind than one that is at hand for training. A copy that lends its phases
    alone, its magnitudes alone, the mean of both magnitudes, or only what is above some frequency, is as hard
    to tell.

    Args:
        original: (samples,).
        copied: (samples,), laid over the original.
        generator: Draws the half and the frame size.
    """
    size = int(generator.choice([256, 512, 1024]))
    true, made = (_stft(x, size, size // 4) for x in (original, copied))
    half = str(generator.choice(["phases", "magnitudes", "upper-band", "mean-magnitudes"]))
    if half == "phases":
        mixed = torch.polar(true.abs(), made.angle())
    elif half == "magnitudes":
        mixed = torch.polar(made.abs(), true.angle())
    elif half == "mean-magnitudes":
        mixed = torch.polar((true.abs() * made.abs()).sqrt(), made.angle())
    else:
        hz = torch.linspace(0, 8_000, len(true))[:, None]
        share = torch.sigmoid((hz - generator.uniform(1_000, 4_500)) / 150)
        mixed = (1 - share) * true + share * made
    return _istft(mixed, size, size // 4, len(original)), half


def resampled(waveform: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Nothing but the way to another sample rate and back, so that it is no sign of a copy."""
    return waveform


# What bona fide speech becomes: spoofs, but for the last one, which stays bona fide.
SPOOFING: dict[str, Resynthesis] = {
    "world": world,
    "linear-prediction": linear_prediction,
    "mel-griffin-lim": mel_griffin_lim,
    "mel-phase-noise": mel_phase_noise,
    "phase-damage": phase_damage,
    "upsampling-images": upsampling_images,
    "spectral-filtering": spectral_filtering,
    "unit-concatenation": unit_concatenation,
}
HARMLESS: dict[str, Resynthesis] = {"resampled": resampled}


@lru_cache(maxsize=1)
def _pyworld() -> ModuleType:
    try:
        with warnings.catch_warnings():  # its way of asking for its own version is deprecated
            warnings.simplefilter("ignore")
            import pyworld
    except ImportError:
        raise UserError("pyworld is not installed; run: pip install 'antispoof[train]'") from None
    return pyworld


def griffin_lim(
    magnitude: Tensor, phase: Tensor, hop: int, samples: int, rounds: int, momentum: float = 0.99
) -> np.ndarray:
    """Returns a waveform (samples,) whose spectrogram comes close to ``magnitude (bins, frames)``.

    Args:
        magnitude: What to approach.
        phase: Where to start.
        hop: Samples between frames; a frame has twice as many samples as ``bins - 1``.
        samples: Length of the result.
        rounds: How often the phase is made consistent.
        momentum: Of the fast variant; 0 is Griffin and Lim's own.
    """
    size = 2 * (len(magnitude) - 1)
    spectrum = torch.polar(magnitude, phase)
    before = torch.zeros_like(spectrum)
    for _ in range(rounds):
        consistent = _stft(_istft(spectrum, size, hop, samples), size, hop)
        ahead = consistent - before * (momentum / (1 + momentum))
        before = consistent
        spectrum = magnitude * ahead / (ahead.abs() + 1e-9)
    return _istft(spectrum, size, hop, samples)


def mel_filters(rate: int, size: int, bands: int, top_hz: float) -> Tensor:
    """Returns triangular filters ``(bands, size // 2 + 1)`` of equal area, evenly spaced in mel."""
    top_mel = 2595 * np.log10(1 + top_hz / 700)
    edges = 700 * (10 ** (np.linspace(0, top_mel, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(size, 1 / rate)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return torch.from_numpy(triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


@lru_cache(maxsize=64)
def _mel_and_back(rate: int, size: int, bands: int, top_hz: float) -> tuple[Tensor, Tensor]:
    filters = mel_filters(rate, size, bands, top_hz)
    return filters, torch.linalg.pinv(filters)


def _through_mel(
    waveform: np.ndarray, rate: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor, int]:
    """Returns the spectrum, its magnitude as a mel spectrogram keeps it, and the hop of both."""
    size = int(generator.choice([1024, 1024, 2048]))
    hop = int(generator.choice([200, 256, 256, 300]))
    bands = int(generator.choice([80, 80, 80, 100, 128]))
    top = rate / 2 if generator.random() < 0.5 else 8000
    spectrum = _stft(waveform, size, hop)
    down, up = _mel_and_back(rate, size, bands, min(top, rate / 2))
    mel = down @ spectrum.abs()
    if generator.random() < 0.4 and mel.shape[1] >= 5:  # statistical models smooth over time
        log = signal.savgol_filter(np.log(mel.numpy() + 1e-7), 5, 2, axis=1)
        mel = torch.from_numpy(np.exp(log).astype(np.float32))
    return spectrum, (up @ mel).clamp(min=TINY), hop


def _smooth(magnitude: Tensor) -> Tensor:
    """Returns a moving average over 17 bins."""
    return F.avg_pool2d(magnitude[None, None], (17, 1), 1, (8, 0), count_include_pad=False)[0, 0]


def _stft(waveform: np.ndarray, size: int, hop: int) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
    return torch.stft(x, size, hop, window=torch.hann_window(size), return_complex=True)


def _istft(spectrum: Tensor, size: int, hop: int, samples: int) -> np.ndarray:
    window = torch.hann_window(size)
    return torch.istft(spectrum.to(torch.complex64), size, hop, window=window, length=samples).numpy()


def _uniform(shape: torch.Size, generator: np.random.Generator) -> Tensor:
    return torch.from_numpy(generator.random(tuple(shape), dtype=np.float32))


def _fit(x: np.ndarray, samples: int) -> np.ndarray:
    return x[:samples] if len(x) >= samples else np.pad(x, (0, samples - len(x)))
