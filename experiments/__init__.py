"""The binaries, `python -m experiments.NAME`, and what they share."""

from experiments import interrupt

interrupt.install()
