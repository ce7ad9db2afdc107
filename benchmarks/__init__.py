"""Measures detectors: accuracy, latency, memory."""
