"""Exports detectors to the formats of phones, servers and browsers."""
