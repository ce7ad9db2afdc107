"""Quantizes exported detectors."""
