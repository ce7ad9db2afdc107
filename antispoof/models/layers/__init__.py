"""Layers that several detectors share, one idea to a file."""
