"""XLA's flags in the tests, and in the processes that they start. Imports no JAX: it reads them when it is imported."""

import os


def xla_flags(devices: int) -> str:
    """So many CPU devices, and XLA's older emitters of fusions.

    These compile an oracle's program in 4 s instead of 10. `oracle/compiled_exact_test.py` takes the newer ones, which users have.
    """
    return f"--xla_cpu_use_fusion_emitters=false --xla_force_host_platform_device_count={devices}"


def without_flags(**added: str) -> dict[str, str]:
    """The environment of a process that compiles as a user's does: for a TPU, whose compiler ends the process over flags of a CPU's."""
    ours = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    return {key: value for key, value in os.environ.items() if key not in ours} | added
