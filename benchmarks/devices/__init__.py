"""Runs model files on phones, and on processors that this machine emulates."""
