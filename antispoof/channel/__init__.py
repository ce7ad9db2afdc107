"""What happens to speech between a mouth and a detector: codecs, noise, rooms, bands, gains, lost packets.

Pure functions from mono float32 at 16 kHz, (samples,), to a new array of the same kind. Chance comes in
as a ``numpy.random.Generator``, so one seed gives one result. The speech stays in place: no function
moves it, save ``add_leading_silence`` and ``trim_silence``.
"""

from antispoof.channel.damage import (
    add_leading_silence,
    apply_gain,
    clip_level,
    lose_packets,
    trim_silence,
)
from antispoof.channel.filters import band_limit
from antispoof.channel.noise import COLOURS, add_noise, coloured_noise, white_noise
from antispoof.channel.room import reverberate, synthetic_impulse_response
from antispoof.channel.transcoding import codecs, transcode

__all__ = [
    "COLOURS",
    "add_leading_silence",
    "add_noise",
    "apply_gain",
    "band_limit",
    "clip_level",
    "codecs",
    "coloured_noise",
    "lose_packets",
    "reverberate",
    "synthetic_impulse_response",
    "transcode",
    "trim_silence",
    "white_noise",
]
