"""Processes, exit codes, preemption, files and locks: what several parts need of the machine."""
