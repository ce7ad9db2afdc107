"""Reads and evaluates Core ML's ML Programs on any machine, from the files alone."""
