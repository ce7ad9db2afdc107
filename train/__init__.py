"""Trains detectors."""
