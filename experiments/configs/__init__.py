"""Presets of the binaries, one file for each."""
