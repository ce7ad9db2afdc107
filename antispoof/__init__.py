"""Speech anti-spoofing detectors: audio, models, metrics and the files they are shipped in."""

__version__ = "0.1.0"
