"""Pallas kernels for TPUs and GPUs."""
