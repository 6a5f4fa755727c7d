"""Data sets larger than memory, read in chunks."""
