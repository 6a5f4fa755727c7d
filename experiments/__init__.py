"""The binaries, `python -m experiments.NAME`, and what they share."""

from experiments.common import interrupt

interrupt.install()
